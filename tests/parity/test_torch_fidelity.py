"""Against torch-fidelity itself, where it can be imported: `pip install torch-fidelity`, with the torchvision that fits."""

import numpy as np
import pytest

from diffjax import metrics
from diffjax.metrics.features import inception, resize

torch = pytest.importorskip("torch")
# torchvision built for another PyTorch raises RuntimeError.
fidelity = pytest.importorskip("torch_fidelity", exc_type=(ImportError, RuntimeError))


def features(seed, count=300, dim=20):
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=dim), 1.0, size=(count, dim)) @ rng.normal(size=(dim, dim))


X, Y = features(0), features(1)
TENSORS = torch.tensor(X), torch.tensor(Y)


def test_frechet_distance():
    from torch_fidelity import metric_fid

    ours = metrics.frechet_distance(metrics.statistics(X), metrics.statistics(Y))
    theirs = metric_fid.fid_statistics_to_metric(*map(metric_fid.fid_features_to_statistics, TENSORS), False)
    assert ours == pytest.approx(theirs[fidelity.KEY_METRIC_FID], rel=1e-9)


def test_kernel_distance_over_the_same_subsets():
    from torch_fidelity import metric_kid

    theirs = metric_kid.kid_features_to_metric(*TENSORS, kid_subsets=10, kid_subset_size=100, verbose=False)
    ours = metrics.subset_kernel_distance(X, Y, subsets=10, subset_size=100)
    assert ours[0] == pytest.approx(theirs[fidelity.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert ours[1] == pytest.approx(theirs[fidelity.KEY_METRIC_KID_STD], rel=1e-9)


def test_inception_score():
    from torch_fidelity import metric_isc

    theirs = metric_isc.isc_features_to_metric(torch.tensor(X))
    ours = metrics.inception_score(X)
    assert ours[0] == pytest.approx(theirs[fidelity.KEY_METRIC_ISC_MEAN], rel=1e-9)
    assert ours[1] == pytest.approx(theirs[fidelity.KEY_METRIC_ISC_STD], rel=1e-9)


def test_precision_and_recall():
    from torch_fidelity import metric_prc

    nearer = X[:, :4], Y[:200, :4]
    theirs = metric_prc.prc_features_to_metric(*map(torch.tensor, nearer), verbose=False)
    ours = metrics.precision_recall(*nearer)
    assert ours == (pytest.approx(theirs["precision"]), pytest.approx(theirs["recall"]))
    assert 0 < ours.precision < 1


@pytest.mark.parametrize("size", [32, 299, 400])
def test_resize(x64, size):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as tensorflow1

    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    for dtype in (np.float32, np.float64):
        x = torch.tensor(images.astype(dtype)).permute(0, 3, 1, 2)
        theirs = ((tensorflow1(x, size=(299, 299), align_corners=False) - 128) / 128).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(resize.tensorflow1(images, 299, dtype), theirs)


def test_inception(tmp_path):
    from torch_reference.inception import randomised

    torch.save(randomised().state_dict(), tmp_path / "weights.pth")
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    ours = {
        tap: inception.extractor(tmp_path / "weights.pth", tap=tap, check_hash=False, batch_size=1)(images)
        for tap in ("64", "2048")
    }
    names = ["64", "2048", "logits_unbiased"]
    net = fidelity.FeatureExtractorInceptionV3("it", names, feature_extractor_weights_path=tmp_path / "weights.pth")
    theirs = net(torch.tensor(images).permute(0, 3, 1, 2))
    found = ours["64"].features, ours["2048"].features, ours["2048"].logits
    for name, a, b in zip(names, found, theirs, strict=True):
        assert np.linalg.norm(a - b.numpy()) < 1e-5 * np.linalg.norm(b.numpy()), name
