import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import data
from diffjax.data import degradations
from diffjax.data.degradations import Degradation


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


RANGES = {"sigma": (0.5, 3.0), "length": (3.0, 15.0), "radius": (1.0, 4.0), "noise": (0.0, 5.0)}


@pytest.mark.parametrize("kinds", [("gaussian",), ("motion",), ("defocus",), ("bicubic",), degradations.KINDS])
def test_a_record_reproduces_its_degradation(kinds):
    image, rng = pixels(24, 16, 3), np.random.default_rng(3)
    for _ in range(5):
        record = degradations.sample(rng, kinds=kinds, **RANGES)
        once = degradations.apply(record, image)
        again = Degradation(**json.loads(json.dumps(record._asdict())))
        assert once.shape == image.shape
        assert once.dtype == np.uint8
        np.testing.assert_array_equal(degradations.apply(again, image), once)
        assert record.kind in kinds


@pytest.mark.parametrize(
    "record",
    [
        *(Degradation("gaussian", 0.3), Degradation("gaussian", 2.5), Degradation("defocus", 3.2)),
        *(Degradation("motion", 9.0, angle) for angle in (0, 30, 90, 135)),
    ],
)
def test_kernels_keep_brightness_and_place(record):
    weights = degradations.kernel(record)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)
    flat = np.full((20, 20, 1), 77, np.uint8)
    np.testing.assert_array_equal(degradations.apply(record, flat), flat)


def spread(weights):
    """Covariance `[2, 2]` of (x, y) under weights."""
    half = len(weights) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    points = np.stack([x.ravel(), -y.ravel()])
    return (points * weights.ravel()) @ points.T


def test_kernels_are_as_wide_as_they_say():
    np.testing.assert_allclose(
        spread(degradations.kernel(Degradation("gaussian", 2.0))), 4 * np.eye(2), rtol=5e-3, atol=1e-9
    )
    disc = spread(degradations.kernel(Degradation("defocus", 6.0)))
    np.testing.assert_allclose(disc, 6.0**2 / 4 * np.eye(2), rtol=0.02, atol=1e-9)
    # A line's variance along it is L²/12; sharing out bilinearly adds at most 1/4.
    for angle, direction in ((0, (1, 0)), (90, (0, 1)), (30, (np.cos(np.pi / 6), np.sin(np.pi / 6)))):
        line = spread(degradations.kernel(Degradation("motion", 15.0, angle)))
        across = np.array([-direction[1], direction[0]])
        assert direction @ line @ direction == pytest.approx(15**2 / 12, rel=0.03)
        assert across @ line @ across < 0.26


def test_no_blur_is_the_image():
    image = pixels(9, 9, 1)
    for kind in degradations.BLURS:
        np.testing.assert_array_equal(degradations.apply(Degradation(kind, 0.0), image), image)


def test_noise_is_as_strong_as_it_says():
    grey = np.full((100, 100, 1), 128, np.uint8)
    noisy = degradations.apply(Degradation("gaussian", 1.0, noise=10.0, seed=5), grey).astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.4)


def test_strengths_are_uniform_in_their_range():
    rng = np.random.default_rng(0)
    sizes = [degradations.sample(rng, kinds=("gaussian",), sigma=(1.0, 3.0)).size for _ in range(4000)]
    assert min(sizes) >= 1
    assert max(sizes) <= 3
    np.testing.assert_allclose(np.quantile(sizes, [0.25, 0.5, 0.75]), [1.5, 2, 2.5], atol=0.06)


def test_low_resolution_is_pillow_s():
    image = pixels(32, 16, 3)
    low = degradations.downsample(image, 4)
    by_hand = Image.fromarray(image).resize((4, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(low, by_hand)
    up = degradations.apply(Degradation("bicubic", 4), image)
    np.testing.assert_array_equal(up, by_hand.resize((16, 32), Image.Resampling.BICUBIC))
    area = image.reshape(8, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(degradations.downsample(image, 4, "area") - area).max() <= 1


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kinds", [(), ("blur",), "motion", None, 1, ("motion", "motion"), (None,), (["motion"],)])
def test_bad_kinds(kinds):
    with pytest.raises(ValueError, match=r"^kinds=.* must be one or more different ones of 'gaussian', 'motion'"):
        degradations.sample(np.random.default_rng(0), kinds=kinds)


@pytest.mark.parametrize("name", ["sigma", "length", "angle", "radius", "noise"])
@pytest.mark.parametrize(
    "bounds",
    [
        ("a", "b"), (3.0, 1.0), (NAN, 1.0), (0.0, NAN), (NAN, NAN), (0.0, INF), (-400.0, 1.0), (0.0, 1001.0),
        (1.0,), (1.0, 2.0, 3.0), 2.0, "12", None, (True, True), (None, 1.0), (0, 10**400),
    ],
)  # fmt: skip
def test_bad_ranges(name, bounds):
    with pytest.raises(ValueError, match=rf"^{name}=.* must be two numbers \(low, high\), .*$") as caught:
        degradations.sample(np.random.default_rng(0), kinds=("gaussian",), **{name: bounds})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "bounds"), [("noise", (0, 256)), ("sigma", (-1, 1)), ("noise", (-1, 1)), ("angle", (0, 361))]
)
def test_bounds_of_each_range(name, bounds):
    with pytest.raises(ValueError, match=f"^{name}="):
        degradations.check(("gaussian",), **{name: bounds})


@pytest.mark.parametrize("factor", [1, 0, -2, 65, 10**12, 2.5, 4.0, NAN, "4", None, True])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match=r"^factor=.* must be a whole number within \[2, 64\]"):
        degradations.sample(np.random.default_rng(0), kinds=("area",), factor=factor)


def test_unknown_ranges():
    with pytest.raises(ValueError, match=r"^width=\(0, 1\) is not an option; the options are: sigma, length"):
        degradations.check(("gaussian",), width=(0, 1))


def test_an_unknown_kind_of_record():
    with pytest.raises(ValueError, match="^kind='blur' is not one of 'gaussian'"):
        degradations.apply(Degradation("blur", 1.0), pixels(8, 8, 1))
    with pytest.raises(ValueError, match="^kind='motion' is not one of 'bicubic', 'area'"):
        degradations.downsample(pixels(8, 8, 1), 2, "motion")


def test_the_factor_must_divide_the_size():
    with pytest.raises(ValueError, match="^factor=4 must divide the height and width of an image of 10×8"):
        degradations.apply(Degradation("area", 4), pixels(10, 8, 1))


def conditioned(**options):
    images = pixels(20, 12, 12, 1)
    iterator = data.batches(
        data.ArraySource(images),
        batch_size=6,
        seed=5,
        prepare=partial(
            data.prepare, shape=(8, 8, 1), resize="crop", crop="random", random_flip=True, random_rot90=True
        ),
        degrade=partial(degradations.degrade, kinds=degradations.KINDS, factor=2, **RANGES),
        **options,
    )
    taken = [next(iterator) for _ in range(4)]
    iterator.close()
    return taken


def test_the_same_conditions_for_any_number_of_workers_and_processes():
    whole = conditioned()
    assert all(batch["condition"].shape == batch["image"].shape for batch in whole)
    rest = conditioned(start={"batches": 2}, num_workers=2)[:2]
    parts = [conditioned(process_index=index, process_count=2) for index in range(2)]
    for n, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["condition"], np.concatenate([part[n]["condition"] for part in parts]))
        if n >= 2:
            np.testing.assert_array_equal(batch["condition"], rest[n - 2]["condition"])


def test_all_rotations_occur():
    image, rng = np.arange(9, dtype=np.uint8).reshape(3, 3, 1), np.random.default_rng(0)
    seen = {
        data.prepare(image, rng, shape=(3, 3, 1), random_flip=True, random_rot90=True).tobytes() for _ in range(200)
    }
    assert seen == {np.rot90(side, k).tobytes() for side in (image, image[:, ::-1]) for k in range(4)}
    with pytest.raises(ValueError, match="^random_rot90=True needs a square image_shape"):
        data.prepare(pixels(3, 4, 1), rng, shape=(3, 4, 1), random_rot90=True)


def test_on_device_conditions_are_flipped_with_their_images():
    source = data.ArraySource(pixels(6, 8, 8, 1))
    prepare = partial(data.prepare, shape=(8, 8, 1))
    columns = data.on_device.load(source, prepare, partial(degradations.degrade, kinds=("area",), factor=2))
    batch = data.on_device.sample_batch(columns, jax.random.key(0), 3, jnp.arange(32), random_flip=True)
    for image, condition in zip(batch["image"], batch["condition"], strict=True):
        np.testing.assert_array_equal(condition, degradations.apply(Degradation("area", 2), np.asarray(image)))
    with pytest.raises(ValueError, match=r"^sigma=\(1.0, 2.0\) is sampled at random, but .* \(on_device=True\)"):
        data.on_device.load(source, prepare, partial(degradations.degrade, kinds=("gaussian",), sigma=(1.0, 2.0)))


def test_pairs_are_cropped_and_rotated_alike(tmp_path):
    for n in range(3):
        image = pixels(12, 14, 3, seed=n)
        for name, picture in (("sharp", image), ("blur", 255 - image)):
            (tmp_path / f"scene{n}" / name).mkdir(parents=True)
            Image.fromarray(picture).save(tmp_path / f"scene{n}" / name / "0.png")
    prepare = partial(data.prepare, shape=(8, 8, 3), resize="crop", crop="random", random_flip=True, random_rot90=True)
    batch = next(data.batches(data.Cached(data.pairs(tmp_path)), batch_size=3, seed=0, prepare=prepare))
    np.testing.assert_array_equal(batch["condition"], 255 - batch["image"])
    (tmp_path / "scene0" / "blur" / "0.png").unlink()
    with pytest.raises(ValueError, match="0.png has no counterpart"):
        data.pairs(tmp_path)
    with pytest.raises(ValueError, match="it has no folders 'clear'"):
        data.pairs(tmp_path, image_key="clear", condition_key="hazy")
