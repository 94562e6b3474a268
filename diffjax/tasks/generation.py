"""Generation, of chosen classes where the network has them: x_0 is an image in [-1, 1]."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import devices, losses, samplers, sampling, timesteps, viz
from diffjax.models import NO_LABEL, UNet
from diffjax.noise import initial_noise, sample_keys
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Steps

CLIP = 1.0
"""The range of x_0, which x̂_0 is clipped to."""

_EACH = 8
"""How many of a class a grid shows, and in how many rows of as many those that have none."""


def normalize(image: jax.Array) -> jax.Array:
    """uint8 0 … 255 → float32 [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def loss(
    schedule: NoiseSchedule,
    model: UNet,
    *,
    offset_noise: float = 0.0,
    label_dropout: float = 0.0,
    train: bool = True,
    **objective: Any,
):
    """The training loss as `training.step` wants it: ε ~ N(0, I), drawn example by example.

    `batch["image"]` is uint8 `[B, H, W, C]`; a network of classes is told `batch["label"]`, int `[B]`.

    Args:
      offset_noise: the strength of `losses.offset_noise`.
      label_dropout: the probability with which an example's label becomes `NO_LABEL` (Ho & Salimans 2022, Alg. 1).
      train: whether anything is dropped: labels, and what the network's own dropout does.
      objective: of `losses.denoising`: target, norm, delta, weights, hybrid.
    """

    def per_example(
        params: Any, batch: dict[str, jax.Array], t: jax.Array, keys: jax.Array, dropout_key: jax.Array
    ) -> jax.Array:
        x0 = normalize(batch["image"])
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(keys)
        if offset_noise:
            noise += losses.offset_noise(jax.vmap(jax.random.fold_in, (0, None))(keys, 0), x0.shape[1:], offset_noise)
        condition = {} if model.num_classes is None else {"label": batch["label"]}
        if condition and label_dropout and train:
            dropped = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), label_dropout))(keys)
            condition["label"] = jnp.where(dropped, NO_LABEL, condition["label"])

        def predict(x, t):
            return model.apply({"params": params}, x, t, **condition, train=train, rngs={"dropout": dropout_key})

        return losses.denoising(schedule, predict, x0, t, noise, **objective)

    return per_example


def labels(model: UNet, numbers: np.ndarray, chosen: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """What a network of classes is told for samples `numbers` `[B]`, their classes int32 `[B]`; others nothing.

    Sample n is of the class n mod their number, or, of those `chosen`, the n-th, over and over.
    """
    if model.num_classes is None:
        return {}
    classes = np.arange(model.num_classes) if chosen is None else np.asarray(chosen)
    return {"label": classes[numbers % len(classes)].astype(np.int32)}


def grid_size(num_classes: int | None) -> int:
    """How many samples fill a `grid`."""
    return _EACH * (num_classes if _has_rows(num_classes) else _EACH)


def grid(images: np.ndarray, num_classes: int | None) -> np.ndarray:
    """The first samples, uint8 `[N, H, W, C]`, as a picture: a row for each of 2 to 16 classes, else rows of 8.

    Sample n is of the class n mod `num_classes`; where one is missing its tile is black.
    """
    images = images[: grid_size(num_classes)]
    if not _has_rows(num_classes):
        return viz.grid(images, columns=_EACH)
    columns = -(-len(images) // num_classes)
    tiles = np.zeros((columns * num_classes, *images.shape[1:]), np.uint8)
    tiles[: len(images)] = images
    by_class = tiles.reshape(columns, num_classes, *images.shape[1:]).swapaxes(0, 1)
    return viz.grid(by_class.reshape(tiles.shape), columns=columns)


def _has_rows(num_classes: int | None) -> bool:
    return num_classes is not None and 2 <= num_classes <= 16


def images(
    steps: Steps, predict: sampling.Predict, shape: tuple[int, ...], *, clip: sampling.Clip = CLIP, **options
) -> Iterator[tuple[int, np.ndarray]]:
    """`sampling.sample_many` as pictures: yields (number of the first, uint8 `[≤ batch_size, *shape]`)."""
    batches = sampling.sample_many(steps, predict, shape, clip=clip, **options)
    for start, x in batches:
        yield start, viz.to_uint8(x)


def write_pictures(
    schedule: NoiseSchedule,
    predict: sampling.Predict,
    shape: tuple[int, ...],
    folder: str | os.PathLike,
    *,
    num_classes: int | None = None,
    variance: str = "fixed_small",
) -> list[Path]:
    """Writes the pictures that end a training, and returns their paths.

    `samples_ddpm.png` (every timestep) and `samples_ddim.png` (50 steps, η = 0) are a `grid` from the same noises;
    `denoising.png` is x_t and x̂_0 along three of the DDPM trajectories.

    Args:
      predict: asked for `grid_size(num_classes)` images at a time, image n of the class n mod `num_classes`.
      num_classes: of the network.
      variance: of DDPM.
    """
    folder = Path(folder)
    total = schedule.num_timesteps
    ddpm = samplers.ddpm(schedule, timesteps.full(total), variance=variance)
    ddim = samplers.ddim(schedule, timesteps.trailing(total, min(50, total)), eta=0.0)
    count = grid_size(num_classes)
    predict = devices.everywhere(sampling.as_pytree(predict), count)
    keys = devices.split(sample_keys(seed=0, start=0, count=count), count)
    noise = initial_noise(keys, shape)

    frames = sampling.sample_trajectory(
        ddpm, predict, noise, keys, every=-(-total // 12), clip=CLIP, progress=f"ddpm, {total} steps"
    )
    x = sampling.sample(ddim, predict, noise, keys, clip=CLIP, progress=f"ddim, {ddim.num_steps} steps")
    grids = {"ddpm": frames.x[-1], "ddim": x}
    paths = [
        viz.save_png(folder / f"samples_{name}.png", grid(viz.to_uint8(images), num_classes))
        for name, images in grids.items()
    ]
    strip = viz.denoising_strip(frames.t, np.asarray(frames.x[:, :3]), np.asarray(frames.x0[:, :3]))
    return [*paths, viz.save_png(folder / "denoising.png", strip)]
