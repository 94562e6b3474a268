"""Uses of the public face that a type checker must accept, and one that it must refuse. Checked by test_pyright.py."""

from typing import assert_type

import jax
import numpy as np

import diffjax as dj

schedule = dj.schedules.linear(1000, beta_start=1e-4, beta_end=0.02)
assert_type(schedule, dj.NoiseSchedule)
grid = dj.timesteps.trailing(1000, 50)
table = dj.samplers.ddim(schedule, grid, eta=0.0)
assert_type(table, dj.Sampler)
keys = dj.sample_keys(0, 0, 4)
x_t = dj.initial_noise(keys, (32, 32, 3))


def predict(x: jax.Array, t: jax.Array) -> jax.Array:
    return x


x_0 = dj.sample(table, predict, x_t, keys, clip=1.0)
assert_type(x_0, jax.Array)
assert_type(dj.sample_trajectory(table, predict, x_t, keys), dj.Trajectory)

run = dj.runs.load("runs/digits")
assert_type(run, dj.runs.Run)
images: np.ndarray = run.sample(64, seed=0)
assert_type(run.sampler, dj.Sampler)
assert_type(dj.interop.load("ddpm-cifar10-32"), dj.runs.Run)
unet = dj.models.UNet(base_channels=16)
dj.viz.grid(images, columns=8)

dj.viz.nope()  # pyright: ignore[reportAttributeAccessIssue]
run.nope()  # pyright: ignore[reportAttributeAccessIssue]
dj.samplers.ddim(schedule, grid, etta=0.0)  # pyright: ignore[reportCallIssue]
