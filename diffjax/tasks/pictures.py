"""What a trained network draws, as pictures: each from sample numbers 0, 1, … of a seed, by the one scan.

`predict` is a function of those numbers, `int[B]`, that gives their predict, as for `sample_many(per_batch=True)`: a
network of classes is told each sample's. Images of more than 64 pixels are shown smaller (`viz.shrink`).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from diffjax import latents, samplers, sampling, timesteps, viz
from diffjax.noise import initial_noise, sample_keys
from diffjax.schedules import NoiseSchedule
from diffjax.tasks.generation import CLIP

PredictOf = Callable[[np.ndarray], sampling.Predict]

_LARGEST, _IN_FRAMES = 64, 32
"""Longest sides of images as they are shown, and of those of which there are hundreds."""
_ANIMATED = 40
"""Frames of an animation, at most."""


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images as pictures show them."""
    return viz.shrink(images, _LARGEST)


def consistency(
    schedule: NoiseSchedule,
    predict: PredictOf,
    shape: tuple[int, ...],
    path: str | os.PathLike,
    *,
    seed: int = 0,
    num: int = 6,
    counts: Sequence[int] = (10, 20, 50, 100, 1000),
) -> Path:
    """DDIM, η = 0, from one noise in different numbers of steps (DDIM §5.2): a row a noise, a column a number.

    Raises:
      ValueError: a number of steps outside 1 … T, and as `sampling.sample`.
    """
    grids = [timesteps.trailing(schedule.num_timesteps, count) for count in counts]
    noise = initial_noise(sample_keys(seed, 0, num), shape)
    asked = predict(np.arange(num))
    x = [
        sampling.sample(samplers.ddim(schedule, grid, eta=0.0), asked, noise, clip=CLIP, progress=f"S = {count}")
        for count, grid in zip(counts, grids, strict=True)
    ]
    images = viz.to_uint8(thumbnails(np.stack(x, axis=1)))
    columns, rows = [f"S = {count}" for count in counts], [f"noise {n}" for n in range(num)]
    return viz.save_png(path, viz.table(images, columns=columns, rows=rows))


def slerps(
    schedule: NoiseSchedule,
    predict: PredictOf,
    shape: tuple[int, ...],
    path: str | os.PathLike,
    *,
    seed: int = 0,
    size: int = 8,
    num_steps: int = 50,
) -> Path:
    """`size`×`size` images between four noises, samples 0 … 3 of the seed (DDIM §5.3); all as sample 0 is told.

    Raises:
      ValueError: as `latents.slerp_grid` and `latents.decode`.
    """
    z = latents.slerp_grid(initial_noise(sample_keys(seed, 0, 4), shape), size).reshape(-1, *shape)
    asked = predict(np.zeros(len(z), int))
    x = latents.decode(schedule, asked, z, num_steps=num_steps, clip=CLIP, progress="slerp")
    return viz.save_png(path, viz.grid(viz.to_uint8(thumbnails(np.asarray(x))), columns=size))


def denoising(
    schedule: NoiseSchedule,
    predict: PredictOf,
    shape: tuple[int, ...],
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    variance: str = "fixed_small",
    num: int = 6,
    frames: int = 256,
) -> list[Path]:
    """One ancestral run of `frames - 1` steps, evenly spaced: how images come out of noise.

    `denoising_x.png` and `denoising_x0.png` are x_t and the x̂_0 predicted from it, of sample 0, each frame with the
    level it is at, in 16 columns (256 frames: 16×16); `denoising.webp` is the run of all `num` samples, animated.

    Args:
      variance: as `samplers.ddpm` has it.
      frames: at most T + 1, of which the last is clean.

    Raises:
      ValueError: as `timesteps.trailing` and `sampling.sample`.
    """
    grid = timesteps.trailing(schedule.num_timesteps, frames - 1)
    steps = samplers.ddpm(schedule, grid, variance=variance)
    keys = sample_keys(seed, 0, num)
    asked, noise = predict(np.arange(num)), initial_noise(keys, shape)
    run = sampling.sample_trajectory(steps, asked, noise, keys, clip=CLIP, progress="denoising")
    x, x0 = (viz.shrink(np.asarray(part), _IN_FRAMES) for part in (run.x, run.x0))
    folder = Path(folder)
    paths = [
        viz.save_png(folder / f"denoising_{name}.png", viz.frame_grid(run.t, part[:, 0], tile=_IN_FRAMES + 8))
        for name, part in (("x", x), ("x0", x0))
    ]
    kept = np.linspace(0, len(run.t) - 1, min(_ANIMATED, len(run.t))).round().astype(int)
    pictures = viz.animation_frames(run.t[kept], x[kept], x0[kept], columns=-(-num // 2))
    return [*paths, viz.save_animation(folder / "denoising.webp", pictures)]
