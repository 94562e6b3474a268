"""The exact likelihood under the probability-flow ODE."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.likelihood.variational import HALF_BIN, check_pixels, checked
from diffjax.noise import keys_of
from diffjax.prediction import Predict, Prediction, one_array, same_shape
from diffjax.schedules import NoiseSchedule

PROBES = ("rademacher", "gaussian")


class Exact(NamedTuple):
    """The likelihood of each sample under the probability-flow ODE."""

    bits_per_dim: jax.Array
    """`[B]`: -log2 of the density at x_0 times the volume (2/255)^d of one 8-bit bin, divided by d."""
    log_prob: jax.Array
    """`[B]`: log of that density, in nats, of all elements together."""
    latent: jax.Array
    """x_{T-1} `[B, …]`, the end of the flow."""
    start: float
    """σ̄_0: the density is that of x_0 + N(0, σ̄_0²), because the flow starts at index 0 and not at clean data."""
    num_steps: int
    """The solver's steps, rejected ones included; each makes six network calls."""


def exact(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array | None = None,
    *,
    probes: int | None = 1,
    distribution: str = "rademacher",
    dequantize: bool = True,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_steps: int = 4096,
) -> Exact:
    """Computes the log-likelihood under the probability-flow ODE (Song et al. 2021, §4.3) by diffrax's adaptive Tsit5.

    With τ = -log(ᾱ/(1-ᾱ)), which is linear in t between whole timesteps, and σ² = 1-ᾱ:

        dx/dτ = ½σ(ε̂ - σx),     dlog p(x)/dτ = -½σ(tr ∂ε̂/∂x - σd),     p(x_{T-1}) = N(0, I)

    The flow goes from x = √ᾱ_0·x_0 at t = 0 to T-1; √ᾱ_0^d converts the density of x into that of x_0. The step
    size is that of the sample that needs the smallest, so results depend on the batch, by less than the tolerance.

    Args:
      schedule: the schedule that the network was trained on, not one respaced from it; ᾱ_{T-1} > 0.
      predict: as in `sample`; it is called with fractional t, in the dtype of x0.
      x0: `[B, …]`, 8-bit images in [-1, 1]; without `dequantize`, any values.
      key: typed keys `[B]`, or one key; None if nothing is sampled.
      probes: the number of vectors v that estimate the trace as the mean of v·∂ε̂/∂x·v (Hutchinson); None computes the
        trace itself, with d Jacobian products for each call.
      distribution: the distribution of v's elements, "rademacher" (±1) or "gaussian".
      dequantize: whether to add U(-1/255, 1/255); the expectation is then a bound on the code length of 8-bit images.
      rtol, atol: the tolerances of a step, for the root mean square of x and for log p over d. With 1e-5, steps are so
        long that their errors are underestimated (2e-4 bits/dim for Gaussian data).
      max_steps: the largest number of solver steps.

    Raises:
      ValueError: images to dequantize that are not 8-bit images in [-1, 1], ᾱ_{T-1} = 0, T = 1, probes < 1, an unknown
        distribution, no key where one is needed, or more than `max_steps` steps.
      ImportError: diffrax is not installed.
    """
    if schedule.alpha_bars[-1] == 0.0 or schedule.num_timesteps < 2:
        raise ValueError(
            f"{schedule}: the flow needs two timesteps, and alpha_bar > 0 at the last (schedules.respace can drop it)"
        )
    if probes is not None and probes < 1:
        raise ValueError(f"probes={probes} must be ≥ 1, or None for the exact trace")
    if distribution not in PROBES:
        raise ValueError(f"distribution={distribution!r} is not one of {', '.join(map(repr, PROBES))}")
    if key is None and (dequantize or probes is not None):
        raise ValueError("dequantize and probes sample noise: pass key, one typed key or one for each sample")
    _diffrax()
    x0, predict = checked(predict, x0)
    shape, d = x0.shape[1:], math.prod(x0.shape[1:])
    keys = None if key is None else keys_of(key, len(x0))
    if dequantize:
        check_pixels(x0)
        x0 = x0 + _sample(keys, 0, shape, x0.dtype, "uniform")
    if probes is None:
        vectors, weight = jnp.eye(d, dtype=x0.dtype).reshape(d, 1, *shape), 1.0 / d
    else:
        vectors = jnp.stack([_sample(keys, 1 + k, shape, x0.dtype, distribution) for k in range(probes)])
        weight = 1.0 / (d * probes)
    x = schedule.sqrt_alpha_bars[0].astype(x0.dtype) * x0
    latent, change, done, num_steps = _flow(predict, x, vectors, weight, -schedule.log_snr, rtol, atol, max_steps)
    if not done:
        raise ValueError(
            f"max_steps={max_steps} is too small to reach the last timestep: allow more, or a larger rtol and atol"
        )
    axes = tuple(range(1, x0.ndim))
    prior = -0.5 * (jnp.mean(latent**2, axes) + math.log(2.0 * math.pi))
    log_prob = prior + change + 0.5 * float(np.log(schedule.alpha_bars[0]))
    bits = -log_prob / math.log(2.0) - math.log2(2.0 * HALF_BIN)
    return Exact(bits, d * log_prob, latent, float(schedule.sigma_bars[0]), int(num_steps))


@partial(jax.jit, static_argnames="max_steps")
def _flow(predict, x, vectors, weight, knots, rtol, atol, max_steps):
    """Returns (x_{T-1}, ∫ div/d dτ `[B]`, success, solver steps); `knots` `[T]` are the values of τ at whole t."""
    diffrax = _diffrax()
    knots = knots.astype(x.dtype)
    axes = tuple(range(1, x.ndim))

    def field(tau, state, args):
        x, _ = state
        predict, vectors = args
        t = jnp.full(len(x), jnp.interp(tau, knots, jnp.arange(len(knots), dtype=x.dtype)))
        sigma = jnp.sqrt(jax.nn.sigmoid(tau))

        def product(v):
            v = jnp.broadcast_to(v, x.shape)
            eps, moved = jax.jvp(lambda x: _eps(predict, x, t), (x,), (v,))
            return eps, jnp.sum(v * moved, axes)

        eps, quadratics = jax.vmap(product, out_axes=(None, 0))(vectors)
        return 0.5 * sigma * (eps - sigma * x), 0.5 * sigma * (weight * jnp.sum(quadratics, axis=0) - sigma)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        t0=knots[0],
        t1=knots[-1],
        dt0=None,
        y0=(x, jnp.zeros(len(x), x.dtype)),
        args=(predict, vectors),
        stepsize_controller=diffrax.PIDController(rtol, atol, norm=_worst),
        adjoint=diffrax.ForwardMode(),
        max_steps=max_steps,
        throw=False,
    )
    latent, change = jax.tree.map(lambda last: last[0], solution.ys)
    return latent, change, solution.result == diffrax.RESULTS.successful, solution.stats["num_steps"]


def _sample(keys, number, shape, dtype, distribution):
    """Returns `[B, *shape]`; sample n uses `fold_in(keys[n], number)`."""
    sample = {
        "uniform": partial(jax.random.uniform, minval=-HALF_BIN, maxval=HALF_BIN),
        "rademacher": jax.random.rademacher,
        "gaussian": jax.random.normal,
    }[distribution]
    return jax.vmap(lambda key: sample(jax.random.fold_in(key, number), shape, dtype))(keys)


def _eps(predict, x, t):
    output = predict(x, t)
    eps = output.eps if isinstance(output, Prediction) else one_array(output, x.dtype)
    return jnp.asarray(same_shape(eps, x), x.dtype)


def _worst(error):
    """Returns the largest error of a sample, given the errors of (x, log p over d)."""
    x, change = error
    rms = jnp.sqrt(jnp.mean(x**2, axis=tuple(range(1, x.ndim))))
    return jnp.max(jnp.maximum(rms, jnp.abs(change)))


def _diffrax():
    try:
        import diffrax
    except ImportError as error:
        raise ImportError("the exact likelihood needs diffrax: pip install '.[likelihood]'") from error
    return diffrax
