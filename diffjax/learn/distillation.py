"""Progressive distillation (Salimans & Ho 2022): a student learns to make two DDIM steps of its teacher in one.

With x/√(1-ᾱ) = y and √ᾱ/√(1-ᾱ) = a, a step of DDIM (η = 0) from t to s is y_s = y_t + (a_s - a_t)·x̂0. So two steps
t → m → s end where the one step with the weighted mean of their predictions ends (Alg. 2, solved for x̃):

    x̃ = w·x̂0(x_t, t) + (1-w)·x̂0(x_m, m),     w = (a_m - a_t)/(a_s - a_t),     w = 0 where s is clean data

A student of N steps is trained at the N timesteps of the trailing grid only, and sampled on that grid.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax import losses, process, timesteps
from diffjax.loop import Clip, network_call
from diffjax.prediction import Predict
from diffjax.schedules import NoiseSchedule


class StepPairs(NamedTuple):
    """The N steps of a student, and the two steps of its teacher that each stands for."""

    start: NDArray[np.int32]
    """`[N]`, descending: the timestep t where a step begins."""
    middle: NDArray[np.int32]
    """`[N]`: the timestep m where the teacher's second step begins."""
    end: NDArray[np.int32]
    """`[N]`: the timestep s where the step ends; -1, clean data, in the last."""
    weight: NDArray[np.float64]
    """`[N]`, in [0, 1): w, the share of the teacher's first prediction in x̃."""

    @classmethod
    def of(cls, schedule: NoiseSchedule, num_steps: int) -> "StepPairs":
        """Returns the steps of a student on the trailing grid of N steps, and its teacher's on that of 2N.

        Raises:
          ValueError: N out of range.
        """
        most = schedule.num_timesteps // 2
        if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)) or not 1 <= num_steps <= most:
            raise ValueError(
                f"num_steps={num_steps} must be within 1 … {most}: the teacher takes twice as many of the schedule's "
                f"{schedule.num_timesteps} timesteps"
            )
        grid = timesteps.trailing(schedule.num_timesteps, 2 * num_steps)
        start, middle, end = grid[:-2:2], grid[1::2], grid[2::2]
        return cls(start, middle, end, first_weight(schedule, start, middle, end))

    def index(self, t: jax.Array) -> jax.Array:
        """Returns the index of the step that begins at or next above t `[B]` in 0 … T-1: uniform t, uniform steps."""
        return len(self.start) - 1 - jnp.searchsorted(jnp.asarray(self.start[::-1]), t)


def first_weight(schedule: NoiseSchedule, t: ArrayLike, m: ArrayLike, s: ArrayLike) -> NDArray[np.float64]:
    """Returns w, the share of x̂0(x_t, t) in x̃, for steps t → m → s; s may be -1, and ᾱ_t may be 0."""
    signal = np.append(schedule.sqrt_alpha_bars, 1.0)  # -1 is the last entry
    noise = np.append(schedule.sqrt_one_minus_alpha_bars, 0.0)
    first = signal[m] * noise[t] - signal[t] * noise[m]  # (a_m - a_t)·√(1-ᾱ_m)·√(1-ᾱ_t)
    both = signal[s] * noise[t] - signal[t] * noise[s]
    return noise[s] * first / (noise[m] * both)


def two_step_target(
    schedule: NoiseSchedule, pairs: StepPairs, index: jax.Array, teacher: Predict, x_t: jax.Array, *, clip: Clip = None
) -> jax.Array:
    """Returns x̃ `[B, …]`, the x̂0 with which one DDIM step ends where two steps of the teacher end.

    Args:
      schedule: the noise schedule.
      pairs: the steps of the student.
      index: `int[B]`: which of them x_t begins.
      teacher: as in `sample`; it may predict anything that the sampling loop understands.
      x_t: `[B, …]`, at the timesteps `pairs.start[index]`.
      clip: how the teacher's x̂0 is clipped, as in `sample`; ε̂ is then derived again.
    """
    t, m = (jnp.asarray(column)[index] for column in (pairs.start, pairs.middle))
    first = network_call(teacher, x_t, t, *process.scales_at(schedule, x_t, t), clip).x0
    x_m = process.q_sample(schedule, first, m, process.predict_eps(schedule, x_t, t, first))
    second = network_call(teacher, x_m, m, *process.scales_at(schedule, x_t, m), clip).x0
    weight = jnp.asarray(pairs.weight, x_t.dtype)[index].reshape(-1, *[1] * (x_t.ndim - 1))
    return weight * first + (1.0 - weight) * second


def progressive(
    schedule: NoiseSchedule,
    pairs: StepPairs,
    teacher: Predict,
    student: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    *,
    target: str = "v",
    clip: Clip = None,
    norm: str = "l2",
    delta: float = 1.0,
    weights: ArrayLike | None = None,
    sigma_data: float = 0.5,
) -> jax.Array:
    """Returns the error of the student's prediction at x_t, the mean over each example's elements: `[B]`.

    The teacher's gradient is not taken. With "v" and no weights the squared error of x̂0 has the weight SNR + 1; with
    `losses.weights(schedule, "truncated", target=target)` it has max(SNR, 1) (Salimans & Ho 2022, §4).

    Args:
      schedule: the noise schedule.
      pairs: the steps of the student.
      teacher: as in `two_step_target`.
      student: (x_t, t) → the prediction of `target`, `[B, …]`; x_t is scaled as `process.network_input` says.
      x0, noise: `[B, …]`.
      t: `[B]` in 0 … T-1; each is moved up to the next start of a step.
      target: what the student predicts, one of `losses.TARGETS`.
      clip: how the teacher's x̂0 is clipped.
      norm, delta, weights, sigma_data: as in `losses.denoising`.

    Raises:
      ValueError: an unknown target or norm, δ ≤ 0, or an output of the wrong shape.
    """
    index = pairs.index(t)
    t = jnp.asarray(pairs.start)[index]
    x_t = process.q_sample(schedule, x0, t, noise)
    wanted = jax.lax.stop_gradient(two_step_target(schedule, pairs, index, teacher, x_t, clip=clip))
    wanted = process.convert(schedule, x_t, t, wanted, given="x0", wanted=target, sigma_data=sigma_data)
    output = student(process.network_input(schedule, x_t, t, target, sigma_data=sigma_data), t)
    if output.shape != x0.shape:
        raise ValueError(f"student returned shape {output.shape} for x of shape {x0.shape}: they must be equal")
    loss = losses.distance(output, wanted, norm=norm, delta=delta)
    return loss if weights is None else loss * jnp.asarray(weights, loss.dtype)[t]
