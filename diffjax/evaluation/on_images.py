"""What a trained network makes of real images: the errors of encoding and decoding them, and their bits/dim.

All go over N images in batches that are spread over the devices; the draws for image n are of sample n of the seed, so
figures do not depend on the batch size.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from diffjax import data, devices, guidance, latents, likelihood, schedules, viz
from diffjax.noise import sample_keys
from diffjax.sampling import Clip, Predict
from diffjax.tasks import generation
from diffjax.training import setup


def read(source: data.Source, prepare: data.Prepare, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `num` images, uint8 `[num, H, W, C]`, and their labels, int32 `[num]`."""
    items = [source[n] for n in range(num)]
    return np.stack([prepare(item["image"]) for item in items]), np.array([item["label"] for item in items], np.int32)


def reconstruct(
    experiment: setup.Experiment, params: Any, images: np.ndarray, labels: np.ndarray, *, num_steps: int,
    batch_size: int = 100,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Images encoded and decoded again, S steps each way, never clipped (DDIM §5.4).

    Returns:
      (the mean squared error of each in [0, 1], `[N]`; what comes back, uint8 `[N, H, W, C]`).
    """
    errors, pictures = [], []
    for count, predict, x0, _ in _batches(experiment, params, images, labels, batch_size):
        back = latents.reconstruct(experiment.schedule, predict, x0, num_steps=num_steps)
        errors.append(np.asarray(jnp.mean(((back - x0) / 2) ** 2, axis=(1, 2, 3)))[:count])
        pictures.append(viz.to_uint8(back)[:count])
    return np.concatenate(errors), np.concatenate(pictures)


def bound(
    experiment: setup.Experiment, params: Any, images: np.ndarray, labels: np.ndarray, *, variance: str,
    clip: Clip = generation.CLIP, indices: ArrayLike | None = None, batch_size: int = 100, seed: int = 0,
    progress: bool = False,
) -> likelihood.Bound:  # fmt: skip
    """`likelihood.bound` of N images, NumPy.

    Args:
      variance, clip: as there.
      indices: `int[S]`, ascending: the bound of the chain that visits these timesteps alone (`schedules.respace`).
      batch_size: images at a time.
      seed: of the draws.
      progress: a progress bar over batches.
    """
    schedule = experiment.schedule if indices is None else schedules.respace(experiment.schedule, indices)
    parts = []
    for count, predict, x0, keys in _batches(experiment, params, images, labels, batch_size, seed, progress):
        asked = predict if indices is None else guidance.map_timesteps(predict, indices)
        found = likelihood.bound(schedule, asked, x0, keys, variance=variance, clip=clip)
        parts.append([np.asarray(part)[..., :count] for part in found])
    return likelihood.Bound(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def exact(
    experiment: setup.Experiment, params: Any, images: np.ndarray, labels: np.ndarray, *, probes: int | None = 1,
    tolerance: float = 1e-6, batch_size: int = 100, seed: int = 0, progress: bool = False,
) -> likelihood.Exact:  # fmt: skip
    """`likelihood.exact` of N images, NumPy; `num_steps` is that of the batch which took most.

    Args:
      probes: as there.
      tolerance: of the solver, relative and absolute.
      batch_size, seed, progress: as for `bound`.

    Raises:
      ValueError, ImportError: as there.
    """
    parts = []
    for count, predict, x0, keys in _batches(experiment, params, images, labels, batch_size, seed, progress):
        found = likelihood.exact(
            experiment.schedule, predict, x0, keys, probes=probes, rtol=tolerance, atol=tolerance
        )  # fmt: skip
        arrays = (np.asarray(part)[:count] for part in (found.bits_per_dim, found.log_prob, found.latent))
        parts.append(likelihood.Exact(*arrays, found.start, found.num_steps))
    joined = (np.concatenate(part) for part in list(zip(*parts, strict=True))[:3])
    return likelihood.Exact(*joined, parts[0].start, max(part.num_steps for part in parts))


def _batches(
    experiment: setup.Experiment, params: Any, images: np.ndarray, labels: Sequence[int], batch_size: int,
    seed: int = 0, progress: bool = False,
) -> Iterator[tuple[int, Predict, jax.Array, jax.Array]]:  # fmt: skip
    """(how many, the network told their labels, x_0, keys); the last batch is filled up: one program serves all."""
    size = devices.whole(min(batch_size, len(images)))
    params = devices.everywhere(params, size)
    for start in tqdm(range(0, len(images), size), unit="batch", disable=not progress):
        numbers = np.arange(start, start + size) % len(images)
        x0 = devices.split(generation.normalize(jnp.asarray(images[numbers])), size)
        condition = {}
        if experiment.model.num_classes is not None:
            condition = {"label": devices.split(jnp.asarray(labels[numbers]), size)}
        keys = devices.split(sample_keys(seed, start, size), size)
        yield min(size, len(images) - start), setup.predictor(experiment, params, **condition), x0, keys
