"""Measures a trained network on real images: errors of encoding and decoding, and bits/dim.

Batches of images are split over the devices. Image n uses the key of sample n of the seed, so that figures do not
depend on the batch size.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from diffjax import data, devices, latents, likelihood, parameterization, schedules
from diffjax.data.pixels import to_float, to_uint8
from diffjax.errors import naming
from diffjax.learn import terms, variances
from diffjax.noise import sample_keys
from diffjax.runs.run import Run
from diffjax.samplers import Moments
from diffjax.sampling import Clip, Predict


def read(source: data.Source, prepare: data.Prepare, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the first `num` images, uint8 `[num, H, W, C]`, and their labels, int32 `[num]`.

    Raises:
      UserError: an image that cannot be read or does not fit.
    """
    with naming("config.data"):
        items = [data.prepared(source[n], None, prepare, None) for n in range(num)]
    return np.stack([item["image"] for item in items]), np.stack([item["label"] for item in items])


def reconstruct(
    run: Run, images: np.ndarray, labels: np.ndarray, *, num_steps: int, batch_size: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes images and decodes them again, in `num_steps` steps each way, without clipping (DDIM §5.4).

    Returns:
      (the mean squared error of each in [0, 1], `[N]`; the decoded images, uint8 `[N, H, W, C]`).
    """
    errors, pictures = [], []
    for count, predict, x0, _ in _batches(run, images, labels, batch_size):
        back = latents.reconstruct(run.schedule, predict, x0, num_steps=num_steps)
        errors.append(np.asarray(jnp.mean(((back - x0) / 2) ** 2, axis=(1, 2, 3)))[:count])
        pictures.append(to_uint8(back)[:count])
    return np.concatenate(errors), np.concatenate(pictures)


def bound(
    run: Run,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    variance: str | ArrayLike,
    clip: Clip = 1.0,
    indices: ArrayLike | None = None,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> likelihood.Bound:
    """Returns `likelihood.bound` of N images, as NumPy arrays.

    Args:
      variance, clip: as in `likelihood.bound`.
      indices: `int[S]`, ascending; the bound is that of the chain that visits only these timesteps
        (`schedules.respace`).
      batch_size: images at a time.
      seed: the seed of the noise.
      progress: whether to show a progress bar over batches.
    """
    schedule = run.schedule if indices is None else schedules.respace(run.schedule, indices)
    parts = []
    for count, predict, x0, keys in _batches(run, images, labels, batch_size, seed, progress):
        wrapped = predict if indices is None else parameterization.map_timesteps(predict, indices)
        found = likelihood.bound(schedule, wrapped, x0, keys, variance=variance, clip=clip)
        parts.append([np.asarray(part)[..., :count] for part in found])
    return likelihood.Bound(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def exact(
    run: Run,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    probes: int | None = 1,
    tolerance: float = 1e-6,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> likelihood.Exact:
    """Returns `likelihood.exact` of N images, as NumPy arrays; `num_steps` is the largest of any batch.

    Args:
      probes: as in `likelihood.exact`.
      tolerance: the relative and absolute tolerance of the solver.
      batch_size, seed, progress: as for `bound`.

    Raises:
      ValueError, ImportError: as `likelihood.exact`.
    """
    parts = []
    for count, predict, x0, keys in _batches(run, images, labels, batch_size, seed, progress):
        found = likelihood.exact(run.schedule, predict, x0, keys, probes=probes, rtol=tolerance, atol=tolerance)
        arrays = (np.asarray(part)[:count] for part in (found.bits_per_dim, found.log_prob, found.latent))
        parts.append(likelihood.Exact(*arrays, found.start, found.num_steps))
    joined = (np.concatenate(part) for part in list(zip(*parts, strict=True))[:3])
    return likelihood.Exact(*joined, parts[0].start, max(part.num_steps for part in parts))


def moments(
    run: Run,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    clip: Clip = 1.0,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> Moments:
    """Returns `learn.moments` of N images with the decoder's terms (`learn.decoder_terms`) of the variance `x0_mse`.

    Args:
      clip: the transform of x̂0, as in `sample`.
      batch_size, seed, progress: as for `bound`.
    """

    def by_image(measure):
        parts = []
        for count, predict, x0, keys in _batches(run, images, labels, batch_size, seed, progress):
            parts.append([np.asarray(part)[:, :count] for part in measure(run.schedule, predict, x0, keys, clip=clip)])
        return [np.concatenate(part, axis=1) for part in zip(*parts, strict=True)]

    found = variances.mean_moments(*by_image(variances.moments_by_example))
    _, decoder = by_image(partial(terms.terms_by_image, decoder_variance=found.x0_mse))
    return found._replace(**dict(zip(("decoder", "decoder_error"), likelihood.mean_and_error(decoder), strict=True)))


def _batches(
    run: Run, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int = 0, progress: bool = False
) -> Iterator[tuple[int, Predict, jax.Array, jax.Array]]:
    """Yields (count, network conditioned on the labels, x_0, keys); the last batch is filled up, to compile once.

    Raises:
      UserError: labels that the network does not have.
    """
    run.task.check_labels(labels)
    size = devices.round_up(min(batch_size, len(images)))
    params = devices.replicate(run.params, size)
    for start in tqdm(range(0, len(images), size), unit="batch", disable=not progress):
        numbers = np.arange(start, start + size) % len(images)
        x0 = devices.split(to_float(jnp.asarray(images[numbers])), size)
        condition = {}
        if run.task.num_classes is not None:
            condition = {"label": devices.split(jnp.asarray(labels[numbers]), size)}
        keys = devices.split(sample_keys(seed, start, size), size)
        yield min(size, len(images) - start), run.task.predictor(params, **condition), x0, keys
