"""Unconditional generation: x_0 is an image in [-1, 1]."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax import losses, samplers, sampling, timesteps, viz
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Steps

CLIP = 1.0
"""The range of x_0, which x̂_0 is clipped to."""


def normalize(image: jax.Array) -> jax.Array:
    """uint8 0 … 255 → float32 [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def loss(schedule: NoiseSchedule, model: nn.Module, *, norm: str):
    """The training loss as `training.step` wants it: t uniform over 0 … T-1 and ε ~ N(0, I), drawn example by example.

    `batch["image"]` is uint8 `[B, H, W, C]`.
    """

    def per_example(params: Any, batch: dict[str, jax.Array], keys: jax.Array, dropout_key: jax.Array) -> jax.Array:
        x0 = normalize(batch["image"])
        t_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        t = jax.vmap(lambda key: jax.random.randint(key, (), 0, schedule.num_timesteps))(t_keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(noise_keys)

        def predict(x, t):
            return model.apply({"params": params}, x, t, train=True, rngs={"dropout": dropout_key})

        return losses.noise_prediction(schedule, predict, x0, t, noise, norm=norm)

    return per_example


def images(
    steps: Steps, predict: sampling.Predict, shape: tuple[int, ...], *, clip: sampling.Clip = CLIP, **options
) -> Iterator[tuple[int, np.ndarray]]:
    """`sampling.sample_many` as pictures: yields (number of the first, uint8 `[≤ batch_size, *shape]`)."""
    batches = sampling.sample_many(steps, predict, shape, clip=clip, **options)
    for start, x in batches:
        yield start, viz.to_uint8(x)


def write_pictures(
    schedule: NoiseSchedule, predict: sampling.Predict, shape: tuple[int, ...], folder: str | os.PathLike
) -> list[Path]:
    """Writes the pictures that end a training, and returns their paths.

    `samples_ddpm.png` (every timestep) and `samples_ddim.png` (50 steps, η = 0) are 8×8 tiles from the same 64 noises;
    `denoising.png` is x_t and x̂_0 along three of the DDPM trajectories.
    """
    folder = Path(folder)
    total = schedule.num_timesteps
    ddpm = samplers.ddpm(schedule, timesteps.full(total))
    ddim = samplers.ddim(schedule, timesteps.trailing(total, min(50, total)), eta=0.0)
    keys = sampling.sample_keys(seed=0, start=0, count=64)
    noise = sampling.initial_noise(keys, shape)

    paths = []
    for name, steps in (("ddpm", ddpm), ("ddim", ddim)):
        x = sampling.sample(steps, predict, noise, keys, clip=CLIP, progress=f"{name}, {steps.num_steps} steps")
        paths.append(viz.save_png(folder / f"samples_{name}.png", viz.grid(viz.to_uint8(x), columns=8)))

    frames = sampling.sample_trajectory(
        ddpm, predict, noise[:3], keys[:3], every=-(-total // 12), clip=CLIP, progress="denoising"
    )
    strip = viz.denoising_strip(frames.t, np.asarray(frames.x), np.asarray(frames.x0))
    return [*paths, viz.save_png(folder / "denoising.png", strip)]
