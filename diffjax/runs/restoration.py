"""Loads pairs of true images and their conditions, and restores images from the conditions with a method."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import data
from diffjax.data import degradations
from diffjax.data.pixels import to_float, to_uint8
from diffjax.errors import UserError, naming
from diffjax.metrics.image_quality import Pair
from diffjax.noise import sample_keys
from diffjax.runs import build, resolve
from diffjax.tasks.base import Restore


def load_pairs(config: ml_collections.ConfigDict, num: int, *, seed: int = 0, whole: bool = False) -> list[Pair]:
    """Returns the first `num` held-out images (training images if none are held out) with their conditions.

    Args:
      config: a resolved config; `data.degradation` degrades the images, unless the source provides conditions.
      num: the number of pairs.
      seed: the seed of the degradations; image n has its own generator, seeded with (seed, n).
      whole: whether images keep their own size; else they are prepared as for training.

    Raises:
      UserError: missing or invalid data, or fewer than `num` images.
    """
    images = build.images(config)
    source = images.held_out if len(images.held_out) else images.source
    if num > len(source):
        raise UserError(f"num={num} must be ≤ {len(source)}, the number of images")
    prepare = partial(_prepare_whole, config=config) if whole else images.prepare
    pairs = []
    with naming("config.data"):
        for n in range(num):
            example = data.prepared(source[n], None, prepare, None)
            truth = example["image"]
            if images.degrade is None:
                pairs.append(Pair(truth, example["condition"], None))
            else:
                record = degradations.sample(np.random.default_rng((seed, n)), **images.degrade.keywords)
                pairs.append(Pair(truth, degradations.apply(record, truth), record))
    return pairs


def conditions(config: ml_collections.ConfigDict, pairs: Sequence[Pair], *, seed: int) -> list[np.ndarray]:
    """Returns the true images of `pairs`, degraded as a config says: uint8 `[H, W, C]`.

    Args:
      config: the config of a run that restores images, with `data.degradation`.
      pairs: the images.
      seed: the seed of the degradations; image n has its own generator, seeded with (seed, n).
    """
    options = resolve.to_dict(config.data.degradation)
    records = [degradations.sample(np.random.default_rng((seed, n)), **options) for n in range(len(pairs))]
    return [degradations.apply(record, pair.truth) for record, pair in zip(records, pairs, strict=True)]


def small_input(pair: Pair) -> np.ndarray:
    """Returns the small image that the condition of a super-resolution pair was enlarged from, uint8 `[h, w, C]`.

    Raises:
      UserError: a pair whose condition comes from the source.
    """
    if pair.record is None:
        raise UserError("config.data.source must have images alone for a cascade; these have conditions of their own")
    return degradations.downsample(pair.truth, pair.record.size, pair.record.kind)


def restore_all(restore: Restore, conditions: Sequence[np.ndarray], *, seed: int, batch_size: int) -> list[np.ndarray]:
    """Returns the restored image of each condition, uint8 `[H, W, C]`; image n uses the key of sample n of the seed.

    Conditions of the same size share batches, and the last batch is filled up, so that one compilation serves all.

    Args:
      restore: the method.
      conditions: uint8 `[H, W, C]`, of any sizes.
      seed: the seed of the noise.
      batch_size: images at a time.
    """
    restored: list[np.ndarray] = [np.empty(0)] * len(conditions)
    keys = sample_keys(seed, 0, len(conditions))
    for shape in dict.fromkeys(condition.shape for condition in conditions):
        numbers = [n for n, condition in enumerate(conditions) if condition.shape == shape]
        size = min(batch_size, len(numbers))
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            filled = np.array(batch + batch[-1:] * (size - len(batch)))
            x = restore(to_float(jnp.asarray(np.stack([conditions[n] for n in filled]))), keys[filled])
            for n, image in zip(batch, to_uint8(x), strict=False):
                restored[n] = image
    return restored


def _prepare_whole(image: np.ndarray, rng: None, *, config: ml_collections.ConfigDict) -> np.ndarray:
    """Returns an image in its own size, cropped at the right and the bottom to a multiple of a reduction's factor."""
    options = config.data.degradation
    factor = options.factor if set(options.kinds) & set(degradations.REDUCTIONS) else 1
    height, width = (size - size % factor for size in image.shape[:2])
    return data.prepare(image[:height, :width], shape=(height, width, config.data.image_shape[2]))
