import jax
import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.metrics import image_quality, lpips
from diffjax.metrics.features import base as features
from diffjax.metrics.features import weights

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def nets():
    from torch_reference.lpips import randomised

    return randomised()


@pytest.fixture(scope="module")
def paths(nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpips")
    for name, net in zip(("alexnet.pth", "alex.pth"), nets, strict=True):
        torch.save(net.state_dict(), folder / name)
    return folder / "alexnet.pth", folder / "alex.pth"


def of_torch(nets, x, y):
    from torch_reference.lpips import distances

    return distances(*nets, *(torch.tensor(part).permute(0, 3, 1, 2) for part in (x, y))).numpy()


def states(nets, dtype):
    return [{key: value.numpy().astype(dtype) for key, value in net.state_dict().items()} for net in nets]


def test_distances_in_float64(x64, nets):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (3, 37, 50, 3))
    y = np.clip(x + np.array([0.0, 0.1, 1.0])[:, None, None, None] * rng.normal(size=x.shape), -1, 1)
    found = jax.jit(lpips.distances)(lpips.from_states(*states(nets, np.float64), "them"), x, y)
    try:
        expected = of_torch([net.double() for net in nets], x, y)
    finally:
        for net in nets:
            net.float()
    assert found[0] < 1e-30
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-30)
    assert 0 < 2 * found[1] < found[2]


def test_grey_images_of_the_least_size(nets, paths):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (2, lpips.LEAST, 33, 1), np.uint8) for _ in range(2))
    distance = lpips.load(*paths, check_hash=False)
    found = distance(a, b)
    expected = of_torch(nets, *((part.repeat(3, axis=-1) / 127.5 - 1).astype(np.float32) for part in (a, b)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    pairs = [image_quality.Pair(truth, truth, None) for truth in b]
    measure = image_quality.Measure(pairs, features.pixels(b.shape[1:]), b.shape[1:], perceptual=distance)
    figure = measure(list(a))["lpips"]
    assert figure.value == pytest.approx(found.mean(), rel=1e-5)
    assert figure.error == pytest.approx(abs(found[0] - found[1]) / 2, rel=1e-3)
    assert str(figure).endswith(" (s.e.)")


def test_invalid_images(paths):
    distance = lpips.load(*paths, check_hash=False)
    small = np.zeros((1, 30, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 31×31 with 1 or 3 channels for LPIPS, not 30×64 with 3"):
        distance(small, small)
    with pytest.raises(ValueError, match="of one shape"):
        distance(np.zeros((1, 32, 32, 3), np.uint8), small)


def test_missing_and_other_weights(tmp_path, paths, monkeypatch):
    with pytest.raises(
        UserError,
        match=r"none.pth does not exist: get the weights of torchvision's AlexNet from .*alexnet-owt-7be5be79.pth .*sha256 7be",
    ):
        lpips.load(tmp_path / "none.pth", paths[1])
    with pytest.raises(UserError, match="is not the file from https://download.pytorch.org.*not 7be5be79"):
        lpips.load(*paths)
    monkeypatch.setattr(lpips, "ALEXNET", lpips.ALEXNET._replace(sha256=weights.sha256(paths[0])))
    with pytest.raises(
        UserError, match="none.pth does not exist: get the weights of LPIPS's linear layers from .*sha256 df73285e"
    ):
        lpips.load(paths[0], tmp_path / "none.pth")


def test_tensors_that_do_not_fit(nets):
    alexnet, linear = states(nets, np.float32)
    alexnet["features.1.weight"] = alexnet.pop("features.0.weight")
    linear["lin4.model.1.weight"] = np.zeros((1, 512, 1, 1), np.float32)
    with pytest.raises(UserError) as error:
        lpips.from_states(alexnet, linear, "them")
    assert str(error.value) == (
        "the tensors of them are not those of LPIPS on AlexNet: missing: features.0.weight; left over: "
        "features.1.weight; of the wrong shape: lin4.model.1.weight is [1, 512, 1, 1], not [1, 256, 1, 1]"
    )
