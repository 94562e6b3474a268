import hashlib

import jax
import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.metrics.features import inception, resize

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def net():
    from torch_reference.inception import randomised

    return randomised()


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(net.state_dict(), path)
    return path


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def of_torch(net, x):
    with torch.no_grad():
        found = net(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
    return {name: value.numpy() for name, value in found.items()}


def test_taps_and_logits_in_float64(x64, net):
    # From 139 pixels the last blocks see 3×3, so that the two pools and their borders matter.
    x = np.random.default_rng(0).uniform(-1, 1, (1, 139, 139, 3))
    double = {key: value.double().numpy() for key, value in net.state_dict().items()}
    found = jax.jit(inception.Inception().apply)({"params": inception.from_state(double, "it")}, x)
    try:
        expected = of_torch(net.double(), x)
    finally:
        net.float()
    assert {*found} == {*inception.TAPS, "logits_unbiased", "logits"}
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert relative(found[name], value) < 1e-12, name
        assert value.std() > 0.1


@pytest.mark.parametrize("name", ["torch-fidelity", pytest.param("pytorch-fid", marks=pytest.mark.slow)])
def test_the_extractor_on_grey_images(net, weights, name):
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    extractor = inception.extractor(weights, resize=name, batch_size=1, check_hash=False)
    assert extractor.dim == 2048
    assert name in extractor.protocol["resize"]
    features, logits = extractor(images)
    expected = of_torch(net, resize.RESIZES[name](images.repeat(3, axis=-1), 299))
    assert relative(features, expected["2048"]) < 1e-5
    assert relative(logits, expected["logits_unbiased"]) < 1e-5


def test_missing_and_other_weights(tmp_path, weights, monkeypatch):
    with pytest.raises(UserError, match=f"{inception.SOURCE}.*sha256 6726825d"):
        inception.extractor(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"is not the file from https.*not 6726825d"):
        inception.extractor(weights)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    inception.load(weights)


def test_tensors_that_do_not_fit(net):
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    state["AuxLogits.fc.weight"] = state.pop("fc.weight")
    state["fc.bias"] = np.zeros(1000)
    with pytest.raises(UserError) as error:
        inception.from_state(state, "it")
    assert str(error.value) == (
        "the tensors of it are not those of FID's Inception: missing: fc.weight; left over: AuxLogits.fc.weight; "
        "of the wrong shape: fc.bias is [1000], not [1008]"
    )


def test_bad_options(weights):
    with pytest.raises(ValueError, match="tap='1024' must be one of 64, 192, 768, 2048"):
        inception.extractor(weights, tap="1024")
    with pytest.raises(ValueError, match="resize='bicubic' must be one of torch-fidelity, pytorch-fid"):
        inception.extractor(weights, resize="bicubic")
    extractor = inception.extractor(weights, check_hash=False)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        extractor(np.zeros((1, 8, 8, 4), np.uint8))
