"""A short training loop for arrays in memory, without configs or files: `train`."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from numpy.typing import ArrayLike

from diffjax import losses, parameterization
from diffjax.data import on_device
from diffjax.models import Network, init_params, predictor
from diffjax.noise import initial_noise
from diffjax.schedules import NoiseSchedule
from diffjax.training import state
from diffjax.training.step import all_devices, check_batch_size, make_train_step, put_on_device, replicate

_SHOWN_EVERY = 100

_MOST_AHEAD = 8
"""Calls of the step that may wait on the device. Several CPU devices can block one another where 32 are waiting."""


class Trained(NamedTuple):
    """The result of `train`."""

    predict: jax.tree_util.Partial
    """predict(x, t) → ε̂ with the averaged parameters, for `diffjax.sample`."""
    params: Any
    """The parameters' exponential moving average."""
    losses: np.ndarray
    """float32 `[num_steps]`: the loss of each step."""


def train(
    network: Network,
    schedule: NoiseSchedule,
    x0: ArrayLike,
    *,
    num_steps: int,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | float = 1e-3,
    ema_decay: float = 0.999,
    target: str = "eps",
    seed: int = 0,
    progress: bool = True,
) -> Trained:
    """Trains a network to denoise data that fit in memory (DDPM, Algorithm 1; `losses.denoising`).

    It is the compiled step of `diffjax train`, on all devices, in a loop that writes nothing. Data sets, checkpoints,
    metrics and conditions are those of `diffjax.runs.train`, which follows a config.

    Args:
      network: a Linen module, as `models.Network` describes.
      schedule: the noise schedule.
      x0: the data, `[N, …]`, scaled to about [-1, 1] or to unit variance.
      num_steps: the number of steps, ≥ 1.
      batch_size: examples of each step, sampled with replacement; a multiple of the number of devices.
      optimizer: an optax optimizer, or the learning rate of Adam.
      ema_decay: the decay of the parameters' average, in [0, 1).
      target: what the network predicts, one of `losses.TARGETS` but "edm".
      seed: the seed of the initial parameters and of everything that training samples.
      progress: whether to show a progress bar.

    Raises:
      ValueError: data without examples or with values that are not finite, an invalid number or target.
      FloatingPointError: a loss that is not finite.
    """
    x0 = np.asarray(x0, np.float32)
    if x0.ndim < 2 or not len(x0) or not np.isfinite(x0).all():
        raise ValueError(f"x0 must be finite and have the shape [N, …] with N ≥ 1; its shape is {list(x0.shape)}")
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be ≥ 1")
    if not 0.0 <= ema_decay < 1.0:
        raise ValueError(f"ema_decay={ema_decay} must be within [0, 1)")
    allowed = tuple(name for name in losses.TARGETS if name != "edm")
    if target not in allowed:
        raise ValueError(f"target={target!r} must be one of {', '.join(map(repr, allowed))}")
    devices = all_devices()
    check_batch_size(batch_size, len(devices))
    if isinstance(optimizer, (int, float)):
        optimizer = optax.adam(optimizer)

    def loss(params, batch, t, keys, dropout_key):
        noise = initial_noise(keys, x0.shape[1:])

        def predict(x, t):
            return network.apply({"params": params}, x, t, train=True, rngs={"dropout": dropout_key})

        return losses.denoising(schedule, predict, batch["image"], t, noise, target=target)

    step = make_train_step(
        loss,
        optimizer,
        schedule=schedule,
        batch_size=batch_size,
        devices=devices,
        sample_batch=on_device.sample_batch,
    )
    current = state.create(
        lambda key: init_params(network, x0.shape[1:], key), optimizer, jax.random.key(seed), ema_decays=(ema_decay,)
    )
    local = jax.local_devices()
    current = replicate(current, local)
    examples = put_on_device({"image": x0, "label": np.zeros(len(x0), np.int32)}, local)
    values = []
    for n in _steps(num_steps, progress):
        current, metrics = step(current, examples)
        values.append(metrics["loss"])
        jax.block_until_ready(values[max(n - _MOST_AHEAD, 0)])
        if (n + 1) % _SHOWN_EVERY == 0 or n + 1 == num_steps:
            latest = np.concatenate(jax.device_get(values[-_SHOWN_EVERY:]))
            if not np.isfinite(latest).all():
                raise FloatingPointError(f"the loss is not finite within the last {len(latest)} of {n + 1} steps")
    params = jax.device_put(jax.device_get(current.ema_params[ema_decay]))
    predict = parameterization.from_target(predictor(network, params), schedule, target)
    return Trained(predict=predict, params=params, losses=np.concatenate(jax.device_get(values)))


def _steps(num_steps: int, progress: bool):
    from tqdm.auto import tqdm

    return tqdm(range(num_steps), desc="training", disable=not progress)
