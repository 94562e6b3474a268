"""Bits per dimension: the variational bound of DDPM, its parts, and the exact likelihood of the probability flow.

An 8-bit image of d elements holds log2 256 = 8 bits/dim as noise does; x_0 in [-1, 1] is one of k/127.5 - 1.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.sampling import Clip, Predict, Prediction, as_clip, as_pytree, ask, keys_of, sample_noise
from diffjax.schedules import NoiseSchedule

VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range")
PROBES = ("rademacher", "gaussian")

_HALF_BIN = 1.0 / 255.0
_EDGE = 0.999
# What stands in where a bin's probability rounds to 0.
_LEAST = 1e-37


def normal_kl(mean_1: jax.Array, log_var_1: jax.Array, mean_2: jax.Array, log_var_2: jax.Array) -> jax.Array:
    """KL(N(μ₁, σ₁²) ‖ N(μ₂, σ₂²)) = ½(log σ₂² - log σ₁² + σ₁²/σ₂² - 1 + (μ₁-μ₂)²/σ₂²), in nats. All broadcast."""
    log_ratio = log_var_1 - log_var_2
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + (mean_1 - mean_2) ** 2 * jnp.exp(-log_var_2))


def discretized_gaussian_log_prob(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """log P(x) in nats for 8-bit images in [-1, 1]: the mass of N(μ, σ²) within 1/255 of x (DDPM Eq. 13).

    The bins at -1 and 1 reach to ∓∞, so the 256 of them hold a mass of 1. Φ itself is used, in logarithms (public code
    has a tanh in its place, and a floor of 10⁻¹² under the mass).

    Args:
      x: one of k/127.5 - 1, k = 0 … 255.
      mean, log_var: broadcast against x.
    """
    scale = jnp.exp(-0.5 * log_var)
    centred = x - mean
    # A bin right of the mean is mirrored: the left tail alone keeps its digits.
    sign = jnp.where(centred > 0, -1.0, 1.0)
    upper = log_ndtr((sign * centred + _HALF_BIN) * scale)
    lower = log_ndtr((sign * centred - _HALF_BIN) * scale)
    inner = upper + jnp.log(jnp.maximum(-jnp.expm1(lower - upper), _LEAST))
    first = log_ndtr((centred + _HALF_BIN) * scale)
    last = log_ndtr((_HALF_BIN - centred) * scale)
    return jnp.where(x < -_EDGE, first, jnp.where(x > _EDGE, last, inner))


def bound_term(
    schedule: NoiseSchedule, x0: jax.Array, x_t: jax.Array, t: jax.Array, mean: jax.Array, log_var: jax.Array
) -> jax.Array:
    """L_t of the bound on -log p(x_0) in bits/dim, the mean over each example's elements: `[B]` (DDPM Eq. 5).

        t > 0: KL(q(x_{t-1} | x_t, x_0) ‖ N(μ, σ²))        t = 0: -log P(x_0), discretised

    The bound itself is Σ_t L_t and the (tiny) KL of q(x_T | x_0) from N(0, I).

    Args:
      x0, x_t: `[B, …]`, x0 an 8-bit image in [-1, 1]; t: `int[B]` in 0 … T-1.
      mean, log_var: `[B, …]`, of the model's p(x_{t-1} | x_t).
    """
    true_mean, _, true_log_var = process.q_posterior(schedule, x0, x_t, t)
    return _term(x0, t, true_mean, true_log_var, mean, log_var)


class Bound(NamedTuple):
    """The bound on -log p(x_0) of each image and its terms, bits/dim: `total` = `prior` + Σ_t `terms`."""

    total: jax.Array
    """`[B]`."""
    prior: jax.Array
    """L_T `[B]`: KL(q(x_T | x_0) ‖ N(0, I))."""
    terms: jax.Array
    """`[T, B]`: at t > 0 the KL of step t → t-1, at t = 0 the decoder's -log P(x_0) (the paper's L_t and L_0)."""
    eps_mse: jax.Array
    """`[T, B]`: the squared error of ε̂ as the network gives it."""
    x0_mse: jax.Array
    """`[T, B]`: that of x̂0, clipped as asked."""


class _Rows(NamedTuple):
    """What the bound reads of a schedule, `[T]`."""

    t: ArrayLike
    signal: ArrayLike
    noise: ArrayLike
    coef_x0: ArrayLike
    coef_xt: ArrayLike
    true_log_var: ArrayLike
    low: ArrayLike
    high: ArrayLike


def bound(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array,
    *,
    variance: str = "fixed_small",
    clip: Clip = None,
) -> Bound:
    """The variational bound on the code length of 8-bit images (DDPM Eq. 5), one draw of x_t at each t.

        L_T + Σ_{t=1}^{T-1} KL(q(x_{t-1} | x_t, x_0) ‖ N(μ(x_t, x̂0), σ_t²)) - log P(x_0 | x_1)

    One scan, one network call a timestep; other parameters compile nothing. The noise at t of sample n comes from
    `fold_in(key_n, t)`, so its bound is the same in any batch. A shorter chain is that of `schedules.respace`.

    Args:
      predict: as `sample` takes it.
      x0: `[B, …]`, 8-bit images in [-1, 1].
      key: typed keys `[B]`, or one key.
      variance: of p(x_{t-1} | x_t), as in `samplers.ddpm`: "fixed_small" β̃, "fixed_large" β, "learned_range" between
        them, or "learned". At t = 0 β̃ of t = 1 stands in for both fixed ones, and for the range's lower end.
      clip: of x̂0, as in `sample`; published bounds of DDPM have 1.

    Raises:
      ValueError: another variance, one that the network does not give, an ε-network where ᾱ = 0, keys that `sample`
        refuses.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance={variance!r} is not one of {', '.join(map(repr, VARIANCES))}")
    x0, predict = _checked(predict, x0)
    answer = jax.eval_shape(predict, x0, jax.ShapeDtypeStruct(x0.shape[:1], jnp.int32))
    gives = isinstance(answer, Prediction)
    if variance.startswith("learned") and not (gives and answer.log_var_frac is not None):
        raise ValueError(f"variance={variance!r}: predict must return a Prediction with log_var_frac")
    if schedule.alpha_bars[-1] == 0.0 and not gives:
        raise ValueError(
            "alpha_bar ends at 0, from where eps says nothing of x0: predict must return a Prediction "
            "(guidance.from_v, from_x0)"
        )
    small, large = schedule.posterior_log_variance, np.log(schedule.betas)
    low, high = {
        "fixed_small": (small, small),
        "fixed_large": (np.append(small[:1], large[1:]),) * 2,
        "learned_range": (small, large),
        "learned": (np.zeros_like(small), np.ones_like(small)),
    }[variance]
    rows = _Rows(
        t=np.arange(schedule.num_timesteps, dtype=np.int32),
        signal=schedule.sqrt_alpha_bars,
        noise=schedule.sqrt_one_minus_alpha_bars,
        coef_x0=schedule.posterior_mean_coef_x0,
        coef_xt=schedule.posterior_mean_coef_xt,
        true_log_var=small,
        low=low,
        high=high,
    )
    return _bound(rows, predict, x0, keys_of(key, len(x0)), as_clip(clip))


@jax.jit
def _bound(rows: _Rows, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip) -> Bound:
    axes = tuple(range(1, x0.ndim))

    def body(carry, row):
        row = row._replace(**{name: column.astype(x0.dtype) for name, column in row._asdict().items() if name != "t"})
        noise = sample_noise(keys, row.t, x0.shape[1:], x0.dtype)
        x_t = row.signal * x0 + row.noise * noise
        answer = ask(predict, x_t, jnp.full(len(x0), row.t), row.signal, row.noise, clip)
        frac = 0.0 if answer.log_var_frac is None else answer.log_var_frac
        true_mean, mean = (row.coef_x0 * start + row.coef_xt * x_t for start in (x0, answer.x0))
        term = _term(x0, row.t, true_mean, row.true_log_var, mean, row.low + frac * (row.high - row.low))
        return carry, (term, jnp.mean((answer.eps - noise) ** 2, axes), jnp.mean((answer.x0 - x0) ** 2, axes))

    _, (terms, eps_mse, x0_mse) = jax.lax.scan(body, None, rows, reverse=True)
    last = 2.0 * jnp.log(rows.noise[-1].astype(x0.dtype))
    prior = jnp.mean(normal_kl(rows.signal[-1].astype(x0.dtype) * x0, last, 0.0, 0.0), axes) / math.log(2.0)
    return Bound(prior + jnp.sum(terms, axis=0), prior, terms, eps_mse, x0_mse)


class Exact(NamedTuple):
    """The likelihood of the probability flow, of each sample."""

    bits_per_dim: jax.Array
    """`[B]`: -log2 of the density at x_0 times the volume (2/255)^d of one 8-bit bin, over d."""
    log_prob: jax.Array
    """`[B]`: log of that density, in nats, of all elements together."""
    latent: jax.Array
    """x_{T-1} `[B, …]`, where the flow ends."""
    start: float
    """σ̄_0: the density is that of x_0 with noise N(0, σ̄_0²) added, for the flow starts at index 0, not at clean data."""
    num_steps: int
    """Of the solver, rejected ones too; each asks the network six times."""


def exact(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array | None = None,
    *,
    probes: int | None = 1,
    distribution: str = "rademacher",
    dequantize: bool = True,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> Exact:
    """The log-likelihood of the probability-flow ODE (Song et al. 2021, §4.3), by diffrax's adaptive Tsit5.

    With τ = -log(ᾱ/(1-ᾱ)), which is linear in t between whole timesteps, and σ² = 1-ᾱ:

        dx/dτ = ½σ(ε̂ - σx),     dlog p(x)/dτ = -½σ(tr ∂ε̂/∂x - σd),     p(x_{T-1}) = N(0, I)

    It runs from x = √ᾱ_0·x_0 at t = 0 to T-1, and √ᾱ_0^d turns the density of x into that of x_0. Steps are chosen for
    the sample in the batch that needs the smallest: others' results differ with the batch, by less than the tolerance.

    Args:
      schedule: that the network was trained on, not one respaced from it; ᾱ_{T-1} > 0.
      predict: as `sample` takes it; it is asked at fractional t, in the dtype of x0.
      x0: `[B, …]`, 8-bit images in [-1, 1]; without `dequantize` anything.
      key: typed keys `[B]`, or one key; None where nothing is drawn.
      probes: how many vectors v estimate the trace as the mean of v·∂ε̂/∂x·v (Hutchinson); None: the trace itself, at
        d network Jacobian products a call.
      distribution: of v's elements: "rademacher" (±1) or "gaussian".
      dequantize: adds U(-1/255, 1/255): the expectation is then a bound on the code length of 8-bit images.
      rtol, atol: of a step, by the root mean square of x and by log p over d.
      max_steps: of the solver.

    Raises:
      ValueError: ᾱ_{T-1} = 0, T = 1, probes < 1, another distribution, no key where it is needed, or more steps than
        allowed.
      ImportError: diffrax is not installed.
    """
    if schedule.alpha_bars[-1] == 0.0 or schedule.num_timesteps < 2:
        raise ValueError(
            f"{schedule}: the flow needs two timesteps, and alpha_bar > 0 at the last; schedules.respace can drop that one"
        )
    if probes is not None and probes < 1:
        raise ValueError(f"probes={probes} must be ≥ 1, or None for the trace itself")
    if distribution not in PROBES:
        raise ValueError(f"distribution={distribution!r} is not one of {', '.join(map(repr, PROBES))}")
    if key is None and (dequantize or probes is not None):
        raise ValueError("dequantize and probes draw noise: pass key, one typed key or one for each sample")
    _diffrax()
    x0, predict = _checked(predict, x0)
    shape, d = x0.shape[1:], math.prod(x0.shape[1:])
    keys = None if key is None else keys_of(key, len(x0))
    if dequantize:
        x0 = x0 + _drawn(keys, 0, shape, x0.dtype, "uniform")
    if probes is None:
        vectors, weight = jnp.eye(d, dtype=x0.dtype).reshape(d, 1, *shape), 1.0 / d
    else:
        vectors = jnp.stack([_drawn(keys, 1 + k, shape, x0.dtype, distribution) for k in range(probes)])
        weight = 1.0 / (d * probes)
    x = schedule.sqrt_alpha_bars[0].astype(x0.dtype) * x0
    latent, change, done, num_steps = _flow(predict, x, vectors, weight, -schedule.log_snr, rtol, atol, max_steps)
    if not done:
        raise ValueError(f"max_steps={max_steps} do not reach the last timestep: allow more, or a larger rtol and atol")
    axes = tuple(range(1, x0.ndim))
    prior = -0.5 * (jnp.mean(latent**2, axes) + math.log(2.0 * math.pi))
    log_prob = prior + change + 0.5 * float(np.log(schedule.alpha_bars[0]))
    bits = -log_prob / math.log(2.0) - math.log2(2.0 * _HALF_BIN)
    return Exact(bits, d * log_prob, latent, float(schedule.sigma_bars[0]), int(num_steps))


@partial(jax.jit, static_argnames="max_steps")
def _flow(predict, x, vectors, weight, knots, rtol, atol, max_steps):
    """(x_{T-1}, ∫ div/d dτ `[B]`, whether it got there, solver steps), τ going through `knots` `[T]`."""
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


def standard_error(values: ArrayLike) -> tuple[float, float]:
    """The mean of values `[N]`, and how far it may be off: their standard deviation over √N. N ≥ 2, float64."""
    values = np.asarray(values, np.float64)
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _term(x0, t, true_mean, true_log_var, mean, log_var):
    """`[B]`: what `bound_term` says, of the posterior's mean and log-variance."""
    kl = normal_kl(true_mean, true_log_var, mean, log_var)
    first = (t == 0).reshape(-1, *(1,) * (x0.ndim - 1))
    # Elsewhere the decoder would be asked far out in a tail, where its gradient overflows.
    decoder = -discretized_gaussian_log_prob(x0, jnp.where(first, mean, x0), jnp.where(first, log_var, 0.0))
    return jnp.mean(jnp.where(first, decoder, kl), axis=range(1, x0.ndim)) / math.log(2.0)


def _checked(predict, x0):
    x0 = jnp.asarray(x0)
    if x0.ndim < 2 or not jnp.issubdtype(x0.dtype, jnp.floating):
        raise ValueError(f"x0 must be a float array [B, …]; it has shape {x0.shape} and dtype {x0.dtype}")
    return x0.astype(jnp.promote_types(x0.dtype, jnp.float32)), as_pytree(predict)


def _drawn(keys, number, shape, dtype, distribution):
    """`[B, *shape]`: sample n draws from `fold_in(keys[n], number)`."""
    draw = {
        "uniform": partial(jax.random.uniform, minval=-_HALF_BIN, maxval=_HALF_BIN),
        "rademacher": jax.random.rademacher,
        "gaussian": jax.random.normal,
    }[distribution]
    return jax.vmap(lambda key: draw(jax.random.fold_in(key, number), shape, dtype))(keys)


def _eps(predict, x, t):
    answer = predict(x, t)
    eps = answer.eps if isinstance(answer, Prediction) else answer
    if jnp.shape(eps) != x.shape:
        raise ValueError(f"predict returned shape {jnp.shape(eps)} for x of shape {x.shape}: they must be equal")
    return jnp.asarray(eps, x.dtype)


def _worst(error):
    """The error of the sample that is furthest off, of (x, log p over d)."""
    x, change = error
    rms = jnp.sqrt(jnp.mean(x**2, axis=tuple(range(1, x.ndim))))
    return jnp.max(jnp.maximum(rms, jnp.abs(change)))


def _diffrax():
    try:
        import diffrax
    except ImportError as error:
        raise ImportError("the exact likelihood needs diffrax: pip install '.[likelihood]'") from error
    return diffrax
