"""What stands between a network and the loop: small functions from predict to predict, composed by ordinary calls.

    predict = from_v(map_timesteps(predictor(model, params), indices), schedule)

Each returns a `jax.tree_util.Partial` of a module-level function: the parameters and tables are its leaves, so new
ones compile nothing, and an equal wrapper built again is equal. What changes the time that the network is told stands
inside; what reads the schedule by the loop's own t stands outside.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.sampling import Predict, Prediction, as_pytree
from diffjax.schedules import NoiseSchedule


def from_x0(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """A network that gives x̂0 `[B, …]` as one that gives `Prediction(x0, eps)`; it serves where ᾱ = 0 too.

    ε̂ = (x - √ᾱ·x̂0)/√(1-ᾱ).

    Raises:
      ValueError: `predict` is no function; asked, a network's output of another shape than x.
    """
    return jax.tree_util.Partial(_from_x0, _checked(predict), process.Scales.of(schedule))


def from_v(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """A network that gives v̂ `[B, …]` as one that gives `Prediction(x0, eps)`; it serves where ᾱ = 0 too.

    x̂0 = √ᾱ·x - √(1-ᾱ)·v̂, ε̂ = √(1-ᾱ)·x + √ᾱ·v̂ (Salimans & Ho 2022, App. D).

    Raises:
      ValueError: as `from_x0`.
    """
    return jax.tree_util.Partial(_from_v, _checked(predict), process.Scales.of(schedule))


def from_target(
    predict: Predict, schedule: NoiseSchedule, target: str = "eps", *, variance: str | None = None
) -> Predict:
    """A network as the loop asks it, whatever it was trained to predict.

    Args:
      target: what it gives: "eps", "x0" or "v".
      variance: what it gives after that: of `split_variance`; None: nothing.

    Raises:
      ValueError: another target or variance.
    """
    if variance is not None:
        return split_variance(predict, schedule, variance, given=target)
    wrap = {"eps": lambda predict, _: predict, "x0": from_x0, "v": from_v}
    if target not in wrap:
        raise ValueError(f"target={target!r} is not one of {', '.join(map(repr, wrap))}")
    return wrap[target](predict, schedule)


def from_score(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """A network that gives the score ∇log q(x_t) `[B, …]` as one that gives `Prediction(x0, eps)`, where ᾱ > 0.

    ε̂ = -√(1-ᾱ)·score, x̂0 = (x - √(1-ᾱ)·ε̂)/√ᾱ.

    Raises:
      ValueError: as `from_x0`.
    """
    return jax.tree_util.Partial(_from_score, _checked(predict), process.Scales.of(schedule))


def to_eps(predict: Predict) -> jax.tree_util.Partial:
    """The ε̂ `[B, …]` alone of whatever `predict` gives."""
    return jax.tree_util.Partial(_to_eps, _checked(predict))


def to_x0(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """The x̂0 `[B, …]` alone of whatever `predict` gives; not finite where ᾱ = 0 if it gives ε̂ only."""
    return jax.tree_util.Partial(_to_x0, _checked(predict), process.Scales.of(schedule))


def split_variance(
    predict: Predict, schedule: NoiseSchedule, kind: str = "learned_range", *, given: str = "eps"
) -> jax.tree_util.Partial:
    """A network with 2C channels, ε̂ and then the variance, as one that gives `Prediction(x0, eps, log_var_frac)`.

    With v the last C channels (Nichol & Dhariwal 2021, Eq. 15):

        learned_range: log_var_frac = (v + 1)/2, from β̃ (at v = -1) to β (at v = 1)
        learned:       log_var_frac = v, which is log σ² itself (that sampler's bounds are 0 and 1)

    Args:
      predict: gives `[B, …, 2C]` for x of `[B, …, C]`.
      kind: "learned_range" or "learned", as in `samplers.ddpm(variance=…)`.
      given: what the first C channels are: "eps", "x0" or "v".

    Raises:
      ValueError: another kind, or other first channels; asked, an output that has not 2C channels.
    """
    for argument, value, allowed in (
        ("kind", kind, ("learned_range", "learned")),
        ("given", given, ("eps", "x0", "v")),
    ):
        if value not in allowed:
            raise ValueError(f"{argument}={value!r} is not one of {', '.join(map(repr, allowed))}")
    return jax.tree_util.Partial(_Split(kind, given), _checked(predict), process.Scales.of(schedule))


def with_noise_level(predict: Predict, schedule: NoiseSchedule, kind: str = "sqrt_alpha_bar") -> jax.tree_util.Partial:
    """Tells the network the noise level √ᾱ[t], in the dtype of x and the shape of t, in place of t (SR3, §2.4).

    Args:
      kind: "sqrt_alpha_bar", or "alpha_bar" for ᾱ[t]. Either is 1 at t = -1.

    Raises:
      ValueError: another kind; asked, a concrete t outside -1 … T-1.
    """
    tables = {"sqrt_alpha_bar": schedule.sqrt_alpha_bars, "alpha_bar": schedule.alpha_bars}
    if kind not in tables:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(map(repr, tables))}")
    return jax.tree_util.Partial(_with_noise_level, _checked(predict), tables[kind])


def scale_timesteps(predict: Predict, factor: float) -> jax.tree_util.Partial:
    """Tells the network t·`factor`, in the dtype of x: OpenAI's `rescale_timesteps` has 1000/T."""
    return jax.tree_util.Partial(_scale_timesteps, _checked(predict), np.float64(factor))


def classifier_free(
    predict: Predict,
    schedule: NoiseSchedule,
    scale: ArrayLike,
    *,
    unconditional: Predict | None = None,
    interval: tuple[ArrayLike, ArrayLike] = (0.0, np.inf),
    rescale: ArrayLike = 0.0,
) -> jax.tree_util.Partial:
    """Classifier-free guidance, ε̂ = ε̂_u + s·(ε̂_c - ε̂_u): s = 0 is the unconditional network, 1 the conditional one.

    (Ho & Salimans 2022, Eq. 6, call w = s - 1 the strength.) x̂0 and v̂ are combined in the same way, since all of them
    are affine in ε̂; the log-variance is the conditional network's. All numbers are leaves: others compile nothing.

    Args:
      predict: the conditional network: gives an array `[B, …]`, ε̂ or what `from_target` takes around this (channels
        after those of x, a variance, stay the conditional ones), or a `Prediction`.
      scale: s.
      unconditional: the other network. None: `predict` answers for both in one call, a batch `[2B, …]` whose rows 2n
        are told the condition of sample n, and rows 2n + 1 none (`both`).
      interval: (low, high): guides where low < σ̄ ≤ high, σ̄ = √((1-ᾱ)/ᾱ), with s = 1 elsewhere (Kynkäänniemi et al.
        2024).
      rescale: φ in [0, 1]: what is guided is multiplied by φ·std(conditional)/std(guided) + 1 - φ, the deviations over
        all but the batch (Lin et al. 2023, §3.4). Of an array this is the network's own answer, as in that paper;
        of a `Prediction` it is x̂0, and ε̂ follows.

    Raises:
      ValueError: a function that is none, an interval or a φ that cannot be; asked, an answer of a wrong shape.
    """
    low, high = interval
    if not isinstance(low, jax.core.Tracer) and not isinstance(high, jax.core.Tracer) and not 0.0 <= low < high:
        raise ValueError(f"interval=({low}, {high}) must be two noise levels, 0 ≤ low < high")
    if not isinstance(rescale, jax.core.Tracer) and not 0.0 <= rescale <= 1.0:
        raise ValueError(f"rescale={rescale} must be within [0, 1]")
    other = None if unconditional is None else _checked(unconditional)
    knobs = _Knobs(*map(_leaf, (scale, low, high, rescale)))
    return jax.tree_util.Partial(_classifier_free, _checked(predict), other, process.Scales.of(schedule), knobs)


def both(condition: jax.Array, none: ArrayLike) -> jax.Array:
    """`[B, …]` and what stands for no condition → `[2B, …]`, row by row, as `classifier_free` asks one network."""
    condition = jnp.asarray(condition)
    pairs = jnp.stack([condition, jnp.broadcast_to(jnp.asarray(none, condition.dtype), condition.shape)], axis=1)
    return pairs.reshape(-1, *condition.shape[1:])


def with_classifier(
    predict: Predict, schedule: NoiseSchedule, log_prob: Callable[[jax.Array, jax.Array], jax.Array], scale: ArrayLike
) -> jax.tree_util.Partial:
    """Classifier guidance, ε̂ - s·√(1-ᾱ)·∇log p(y | x_t) (Dhariwal & Nichol 2021, Alg. 2), where ᾱ > 0.

    Where `predict` is the unconditional network, s = 1 and p the true classifier of x_t, this is the conditional one.
    An ancestral table's mean moves by s·(β_t/√α_t)·∇log p; their Alg. 1 has s·Σ_t·∇log p.

    Args:
      predict: gives ε̂ `[B, …]`, or a `Prediction`.
      log_prob: (x_t `[B, …]`, t `[B]`) → log p(y_n | x_n) `[B]`, each of its own x alone; a pytree, as `predict`.
      scale: s, a leaf.

    Raises:
      ValueError: a function that is none; asked, an answer of a wrong shape.
    """
    if not callable(log_prob):
        raise ValueError(f"log_prob must be callable as log_prob(x, t); it is a {type(log_prob).__name__}")
    scales = process.Scales.of(schedule)
    return jax.tree_util.Partial(_with_classifier, _checked(predict), as_pytree(log_prob), scales, _leaf(scale))


def map_timesteps(predict: Predict, indices: ArrayLike) -> jax.tree_util.Partial:
    """Asks the network at `indices[t]`: it was trained on the schedule from which one of T' indices was respaced.

    Args:
      indices: `int[T']`, the kept indices of the longer schedule, strictly ascending.

    Raises:
      ValueError: indices that are not such; asked, a concrete t outside 0 … T'-1, or a fractional one.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or not indices.size or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices must be whole numbers [T']; they have shape {indices.shape}, dtype {indices.dtype}")
    if indices[0] < 0 or np.any(np.diff(indices) <= 0):
        raise ValueError(f"indices must ascend strictly from 0 or above; they are {indices}")
    return jax.tree_util.Partial(_map_timesteps, _checked(predict), indices.astype(np.int32))


def _from_x0(predict, scales, x, t):
    x0 = _ask(predict, x, t)
    return Prediction(x0, process.predict_eps(scales, x, t, x0))


def _from_v(predict, scales, x, t):
    v = _ask(predict, x, t)
    return Prediction(process.x0_from_v(scales, x, t, v), process.eps_from_v(scales, x, t, v))


def _from_score(predict, scales, x, t):
    eps = process.eps_from_score(scales, t, _ask(predict, x, t))
    return Prediction(process.predict_x0(scales, x, t, eps), eps)


def _to_eps(predict, x, t):
    answer = predict(x, t)
    return answer.eps if isinstance(answer, Prediction) else answer


def _to_x0(predict, scales, x, t):
    answer = predict(x, t)
    if isinstance(answer, Prediction):
        return answer.x0
    return process.predict_x0(scales, x, t, _same_shape(_array(answer, x.dtype), x))


@dataclasses.dataclass(frozen=True)
class _Split:
    """Compares equal for equal fields, so that an equal wrapper compiles nothing anew."""

    kind: str
    given: str

    def __call__(self, predict, scales, x, t):
        answer, channels = _array(predict(x, t), x.dtype), x.shape[-1]
        if answer.shape[-1:] != (2 * channels,):
            raise ValueError(
                f"a network that predicts the variance too gives {2 * channels} channels for the {channels} of x; "
                f"this one gave shape {answer.shape}"
            )
        value, v = (_same_shape(part, x) for part in jnp.split(answer, 2, axis=-1))
        x0, eps = (process.convert(scales, x, t, value, given=self.given, wanted=wanted) for wanted in ("x0", "eps"))
        return Prediction(x0, eps, (v + 1.0) / 2.0 if self.kind == "learned_range" else v)


def _with_noise_level(predict, table, x, t):
    return predict(x, process.lookup(table, t, x, clean=1.0).reshape(jnp.shape(t)))


def _scale_timesteps(predict, factor, x, t):
    return predict(x, jnp.asarray(t, x.dtype) * jnp.asarray(factor, x.dtype))


class _Knobs(NamedTuple):
    """Of `classifier_free`."""

    scale: ArrayLike
    low: ArrayLike
    high: ArrayLike
    rescale: ArrayLike


def _classifier_free(predict, unconditional, scales, knobs, x, t):
    conditional, free = _two_answers(predict, unconditional, x, t)
    signal, noise = process.scales_at(scales, x, t, clean=False)
    scale, low, high, rescale = (jnp.asarray(knob, x.dtype) for knob in knobs)
    level = noise / signal
    scale = jnp.where((low < level) & (level <= high), scale, 1.0)

    def guided(c, u):
        # Exact at both ends.
        return scale * c + (1.0 - scale) * u

    def factor(c, guided):
        c_std, std = (jnp.std(part, axis=range(1, x.ndim), keepdims=True) for part in (c, guided))
        return jnp.where(std > 0, rescale * c_std / jnp.where(std > 0, std, 1.0) + (1.0 - rescale), 1.0)

    if not isinstance(conditional, Prediction):
        channels = x.shape[-1]
        c, u = (_same_shape(answer[..., :channels], x) for answer in (conditional, free))
        value = guided(c, u)
        return jnp.concatenate([value * factor(c, value), conditional[..., channels:]], axis=-1)
    x0, eps = guided(conditional.x0, free.x0), guided(conditional.eps, free.eps)
    rescaled = x0 * factor(conditional.x0, x0)
    return Prediction(rescaled, eps + signal / noise * (x0 - rescaled), conditional.log_var_frac)


def _two_answers(predict, unconditional, x, t):
    """The conditional answer and the other, both arrays or both `Prediction`s, in the sampler's dtype."""
    if unconditional is None:
        twice = predict(jnp.repeat(x, 2, axis=0), jnp.repeat(jnp.broadcast_to(t, x.shape[:1]), 2))
        if any(len(part) != 2 * len(x) for part in jax.tree.leaves(twice)):
            raise ValueError(
                f"without unconditional=, predict must answer for 2·{len(x)} rows; it gave "
                f"{[part.shape for part in jax.tree.leaves(twice)]}"
            )
        # Rows side by side: of a batch spread over devices, each keeps its own.
        pairs = jax.tree.map(lambda part: part.reshape(len(x), 2, *part.shape[1:]), twice)
        answers = jax.tree.map(lambda part: part[:, 0], pairs), jax.tree.map(lambda part: part[:, 1], pairs)
    else:
        answers = predict(x, t), unconditional(x, t)
    if isinstance(answers[0], Prediction) != isinstance(answers[1], Prediction):
        raise ValueError("predict and unconditional must both give an array, or both a Prediction")
    return jax.tree.map(lambda part: jnp.asarray(part, x.dtype), answers)


def _with_classifier(predict, log_prob, scales, scale, x, t):
    def total(x):
        value = log_prob(x, t)
        if jnp.shape(value) != x.shape[:1]:
            raise ValueError(f"log_prob returned shape {jnp.shape(value)} for {len(x)} rows; it must be [{len(x)}]")
        return jnp.sum(value)

    signal, noise = process.scales_at(scales, x, t, clean=False)
    shift = jnp.asarray(scale, x.dtype) * noise * jax.grad(total)(x).astype(x.dtype)
    answer = predict(x, t)
    if not isinstance(answer, Prediction):
        return _same_shape(_array(answer, x.dtype), x) - shift
    x0, eps, frac = answer
    return Prediction(x0 + noise / signal * shift, eps - shift, frac)


def _map_timesteps(predict, indices, x, t):
    if jnp.issubdtype(jnp.result_type(t), jnp.floating):
        raise ValueError(f"t of dtype {jnp.result_type(t)}: an adaptive solver needs the schedule of the training")
    t = t if isinstance(t, jax.core.Tracer) else np.asarray(t)
    if not isinstance(t, jax.core.Tracer) and (np.min(t) < 0 or np.max(t) >= len(indices)):
        raise ValueError(f"timestep {np.min(t)} … {np.max(t)} is out of range: allowed is 0 … {len(indices) - 1}")
    answer, known = predict(x, jnp.asarray(indices)[t]), (t >= 0) & (t < len(indices))
    # A traced t cannot raise: what it has no index for is NaN, not a neighbour's.
    return jax.tree.map(
        lambda part: jnp.where(jnp.reshape(known, known.shape + (1,) * (part.ndim - known.ndim)), part, jnp.nan), answer
    )


def _ask(predict, x, t):
    return _same_shape(_array(predict(x, t), x.dtype), x)


def _array(answer, dtype):
    """The network's answer in the sampler's dtype."""
    if isinstance(answer, Prediction):
        raise ValueError("predict returned a Prediction: this wrapper takes a network that gives one array")
    return jnp.asarray(answer, dtype)


def _same_shape(answer, x):
    # Broadcasting would hide a wrong shape from the loop's own check.
    if answer.shape != x.shape:
        raise ValueError(f"predict returned shape {answer.shape} for x of shape {x.shape}: they must be equal")
    return answer


def _leaf(number: ArrayLike) -> ArrayLike:
    """A number as a leaf of one type, so that 2 compiles nothing that 2.0 has not."""
    return np.float64(number) if isinstance(number, int | float) else number


def _checked(predict: Predict):
    """`predict` as an argument of a `Partial`, which jit takes."""
    if not callable(predict):
        raise ValueError(f"predict must be callable as predict(x, t); it is a {type(predict).__name__}")
    return as_pytree(predict)
