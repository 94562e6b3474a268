"""Pictures of samples of a trained network: of the samples 0, 1, … of a seed, all in one scan.

A network with classes is conditioned on the class of each sample, and guided if `config.sample` says so. Images with
more than 64 pixels on a side are shown smaller (`viz.shrink`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax import latents, samplers, sampling, timesteps, viz
from diffjax.files import to_path
from diffjax.noise import initial_noise, sample_keys
from diffjax.runs.run import Run

_LARGEST, _IN_FRAMES = 64, 32
"""The longest side of images as they are shown, and of the hundreds of images of a trajectory."""
_ANIMATED = 40
"""The largest number of frames of an animation."""


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Returns images `[…, H, W, C]` as pictures show them."""
    return viz.shrink(images, _LARGEST)


def consistency(
    run: Run,
    path: str | os.PathLike,
    *,
    seed: int = 0,
    num: int = 6,
    counts: Sequence[int] = (10, 20, 50, 100, 1000),
) -> Path:
    """Writes images that DDIM (η = 0) makes of the same noise in different numbers of steps (DDIM §5.2).

    Each row has one noise, each column one number of steps.

    Args:
      run: the trained network.
      path: the PNG file.
      seed: the seed of the noise.
      num: the number of rows.
      counts: the numbers of steps S.

    Raises:
      ValueError: a number of steps outside 1 … T, and as `sampling.sample`.
    """
    grids = [timesteps.trailing(run.schedule.num_timesteps, count) for count in counts]
    noise = initial_noise(sample_keys(seed, 0, num), run.image_shape)
    predict = _predict(run, np.arange(num))
    x = [
        sampling.sample(
            samplers.ddim(run.schedule, grid, eta=0.0), predict, noise, clip=run.clip, progress=f"S = {count}"
        )
        for count, grid in zip(counts, grids, strict=True)
    ]
    images = viz.to_uint8(thumbnails(np.stack(x, axis=1)))
    columns, rows = [f"S = {count}" for count in counts], [f"noise {n}" for n in range(num)]
    return viz.save_png(path, viz.table(images, columns=columns, rows=rows))


def slerps(run: Run, path: str | os.PathLike, *, seed: int = 0, size: int = 8, num_steps: int = 50) -> Path:
    """Writes `size`×`size` images of noises interpolated between those of samples 0 … 3 of the seed (DDIM §5.3).

    All have the class of sample 0.

    Args:
      run: the trained network.
      path: the PNG file.
      seed: the seed of the noise.
      size: the number of images on a side.
      num_steps: the number of DDIM steps.

    Raises:
      ValueError: as `latents.slerp_grid` and `latents.decode`.
    """
    shape = run.image_shape
    z = latents.slerp_grid(initial_noise(sample_keys(seed, 0, 4), shape), size).reshape(-1, *shape)
    predict = _predict(run, np.zeros(len(z), int))
    x = latents.decode(run.schedule, predict, z, num_steps=num_steps, clip=run.clip, progress="slerp")
    return viz.save_png(path, viz.grid(viz.to_uint8(thumbnails(np.asarray(x))), columns=size))


def denoising(
    run: Run,
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    variance: str = "fixed_small",
    num: int = 6,
    frames: int = 256,
) -> list[Path]:
    """Writes one ancestral trajectory of `frames - 1` evenly spaced steps, from noise to images.

    `denoising_x.png` and `denoising_x0.png` show x_t and the x̂_0 predicted from it, of sample 0, each frame with its
    noise level, in 16 columns (256 frames: 16×16). `denoising.webp` animates all `num` samples.

    Args:
      run: the trained network.
      folder: the folder of the files.
      seed: the seed of the noise.
      variance: as in `samplers.ddpm`.
      num: the number of samples.
      frames: at most T + 1, the last of which is clean.

    Raises:
      ValueError: as `timesteps.trailing` and `sampling.sample`.
    """
    grid = timesteps.trailing(run.schedule.num_timesteps, frames - 1)
    sampler = samplers.ddpm(run.schedule, grid, variance=variance)
    keys = sample_keys(seed, 0, num)
    predict, noise = _predict(run, np.arange(num)), initial_noise(keys, run.image_shape)
    found = sampling.sample_trajectory(sampler, predict, noise, keys, clip=run.clip, progress="denoising")
    x, x0 = (viz.shrink(np.asarray(part), _IN_FRAMES) for part in (found.x, found.x0))
    folder = to_path(folder)
    paths = [
        viz.save_png(folder / f"denoising_{name}.png", viz.frame_grid(found.t, part[:, 0], tile=_IN_FRAMES + 8))
        for name, part in (("x", x), ("x0", x0))
    ]
    kept = np.linspace(0, len(found.t) - 1, min(_ANIMATED, len(found.t))).round().astype(int)
    pictures = viz.animation_frames(found.t[kept], x[kept], x0[kept], columns=-(-num // 2))
    return [*paths, viz.save_animation(folder / "denoising.webp", pictures)]


def _predict(run: Run, numbers: np.ndarray) -> sampling.Predict:
    """Returns the network conditioned on the classes of samples `numbers` `[B]`."""
    return run.task.predictor(run.params, guidance=run.sampling.guidance, **run.task.labels(numbers))
