"""Operators and methods by name: what a config or a command line needs for posterior sampling.

    operator = registry.operator("downsampling", (32, 32, 1), factor=4)
    x = registry.sample("mmps", Problem(…), iterations=3)

A method runs with the sampler of its paper, on the grid of the problem.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import editing, fields, samplers
from diffjax.data import degradations
from diffjax.inverse import by_row, methods, operators, particles
from diffjax.inverse.operators import Operator, Shape
from diffjax.loop import Clip
from diffjax.noise import initial_noise
from diffjax.prediction import Predict
from diffjax.registry import Registry, call
from diffjax.sampling import sample as run_table
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

OPERATORS = Registry("operator")
"""Functions (image_shape, options) → `Operator`."""

METHODS = Registry("method of posterior sampling")
"""Functions (problem: Problem, options) → samples `[B, …]`."""


class Problem(NamedTuple):
    """Measurements of images, and the network that knows what images look like."""

    predict: Predict
    """As in `sample`; an unconditional network."""
    schedule: NoiseSchedule
    grid: np.ndarray
    """The time grid on which the sampler is built, `[S+1]`."""
    operator: Operator
    y: jax.Array
    """The measurements, `[B, …]`."""
    keys: jax.Array
    """Typed keys `[B]` of the samples."""
    noise_std: float
    """σ_y."""
    clip: Clip = None


def operator(name: str, image_shape: Shape, options: Mapping[str, Any] | None = None) -> Operator:
    """Builds an operator of `OPERATORS`, or of an import path.

    Raises:
      ValueError: an unknown name or option, or one out of range.
    """
    return call(OPERATORS[name], {"image_shape": tuple(image_shape)}, options or {})


def sample(name: str, problem: Problem, options: Mapping[str, Any] | None = None) -> jax.Array:
    """Samples the posterior by a method of `METHODS`, or of an import path: `[B, …]`.

    Raises:
      ValueError: an unknown name or option, one out of range, or an operator that the method cannot take.
    """
    return call(METHODS[name], {"problem": problem}, options or {})


def options_of(kind: str, registry: Registry) -> dict[str, fields.Field]:
    """Returns the options of an entry of one of the two registries.

    Raises:
      ValueError: an unknown name.
    """
    return fields.options(registry[kind], ("image_shape", "problem"))


@OPERATORS.register
def downsampling(image_shape: Shape, *, factor: int = 4, kind: str = "bicubic") -> Operator:
    """Reduces height and width (super-resolution).

    Args:
      factor: The factor, which must divide both.
      kind: The filter, "bicubic" or "area".
    """
    return operators.downsampling(image_shape, factor, kind)


@OPERATORS.register
def box(image_shape: Shape, *, height: float = 0.5, width: float = 0.5) -> Operator:
    """Hides a box in the middle (inpainting).

    Args:
      height: The height of the box over that of the image, in (0, 1].
      width: The width of the box over that of the image, in (0, 1].

    Raises:
      ValueError: a share out of range.
    """
    known = np.ones(image_shape, bool)
    edges = []
    for name, share, size in (("height", height, image_shape[0]), ("width", width, image_shape[1])):
        if not 0.0 < share <= 1.0:
            raise ValueError(f"{name}={share} must be within (0, 1]")
        hidden = max(1, round(share * size))
        edges.append(slice((size - hidden) // 2, (size - hidden) // 2 + hidden))
    known[tuple(edges)] = False
    return operators.mask(known)


@OPERATORS.register
def random_mask(image_shape: Shape, *, share: float = 0.5, mask_seed: int = 0) -> Operator:
    """Hides pixels at random, all channels of a pixel together (inpainting).

    Args:
      share: The probability that a pixel is hidden, in [0, 1].
      mask_seed: The seed of the mask, which is the same for all images.

    Raises:
      ValueError: a probability out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share={share} must be within [0, 1]")
    known = np.random.default_rng(mask_seed).random((*image_shape[:2], 1)) >= share
    return operators.mask(np.broadcast_to(known, image_shape))


@OPERATORS.register
def gaussian_blur(image_shape: Shape, *, sigma: float = 2.0, edges: str = "periodic") -> Operator:
    """Blurs by a Gaussian (deblurring).

    Args:
      sigma: The standard deviation in pixels, in (0, 1000].
      edges: "periodic", which has an SVD, or "reflect", the blur of `data.degradations`.
    """
    return operators.blur(image_shape, _kernel("gaussian", sigma), edges=edges)


@OPERATORS.register
def motion_blur(image_shape: Shape, *, length: float = 5.0, angle: float = 0.0, edges: str = "periodic") -> Operator:
    """Blurs along a line (deblurring).

    Args:
      length: The length of the line in pixels, in (0, 1000].
      angle: Its direction in degrees, counter-clockwise from the x-axis.
      edges: "periodic", which has an SVD, or "reflect", the blur of `data.degradations`.
    """
    return operators.blur(image_shape, _kernel("motion", length, angle), edges=edges)


@OPERATORS.register
def grey(image_shape: Shape) -> Operator:
    """Averages the channels (colouring)."""
    return operators.channels(np.full((1, image_shape[-1]), 1.0 / image_shape[-1]), image_shape)


def _kernel(kind: str, size: float, angle: float = 0.0) -> np.ndarray:
    if not 0.0 < size <= 1000.0:
        raise ValueError(f"{'sigma' if kind == 'gaussian' else 'length'}={size} must be within (0, 1000]")
    return degradations.kernel(degradations.Degradation(kind, size, angle))


@METHODS.register
def mmps(problem: Problem, *, iterations: int = 5, eta: float = 1.0) -> jax.Array:
    """Moment matching posterior sampling (Rozet et al. 2024).

    Args:
      iterations: The steps of the solver in each network call, each a backward pass; ≥ 1.
      eta: η of the sampler, 1 (DDPM) … 0 (DDIM).
    """
    predict = methods.mmps(*_arguments(problem), noise_std=problem.noise_std, iterations=iterations)
    return _run(problem, samplers.ddim(problem.schedule, problem.grid, eta=eta), predict)


@METHODS.register
def pigdm(problem: Problem, *, published: bool = False, prior_var: float = 1.0, eta: float = 1.0) -> jax.Array:
    """Pseudoinverse-guided diffusion, ΠGDM (Song et al. 2023).

    Args:
      published: Whether the weight is that of the paper in place of the score's.
      prior_var: The variance of the data, > 0.
      eta: η of the sampler, 1 (DDPM) … 0 (DDIM).
    """
    predict = methods.pigdm(*_arguments(problem), noise_std=problem.noise_std, prior_var=prior_var, published=published)
    return _run(problem, samplers.ddim(problem.schedule, problem.grid, eta=eta), predict)


@METHODS.register
def dps(problem: Problem, *, scale: float = 1.0) -> jax.Array:
    """Diffusion posterior sampling (Chung et al. 2023).

    Args:
      scale: ζ, the length of the gradient step in units of x.
    """
    table = samplers.ddpm(problem.schedule, problem.grid)
    return _run(problem, table, by_row.dps(problem.predict, table, problem.operator, problem.y, scale=scale))


@METHODS.register
def ddrm(problem: Problem, *, eta: float = 0.85, eta_b: float = 1.0) -> jax.Array:
    """Denoising diffusion restoration models (Kawar et al. 2022); the operator needs an SVD.

    Args:
      eta: η, the share of new noise where y does not help, in [0, 1].
      eta_b: η_b, the weight of y where it is less noisy than x, in [0, 1].
    """
    return _with_own_noise(problem, by_row.ddrm, eta=eta, eta_b=eta_b)


@METHODS.register
def ddnm(problem: Problem, *, eta: float = 0.85) -> jax.Array:
    """The denoising diffusion null-space model, for measurements without noise (Wang et al. 2023).

    Args:
      eta: η of DDIM, in [0, 1].
    """
    table = samplers.ddim(problem.schedule, problem.grid, eta=eta, rederive_eps=False)
    return _run(problem, table, methods.ddnm(*_arguments(problem)))


@METHODS.register
def ddnm_plus(problem: Problem, *, eta: float = 0.85) -> jax.Array:
    """DDNM for noisy measurements (Wang et al. 2023, App. I); the operator needs an SVD.

    Args:
      eta: η, the share of new noise, in [0, 1].
    """
    return _with_own_noise(problem, by_row.ddnm_plus, eta=eta)


@METHODS.register
def diffpir(problem: Problem, *, strength: float = 10.0, zeta: float = 0.5) -> jax.Array:
    """Plug-and-play restoration, DiffPIR (Zhu et al. 2023).

    Args:
      strength: λ, the weight of the prior, > 0.
      zeta: ζ, the share of new noise, in [0, 1].
    """
    sigma = methods.diffpir_noise(problem.schedule, problem.grid, zeta)
    table = samplers.ddim(problem.schedule, problem.grid, sigma=sigma)
    predict = methods.diffpir(*_arguments(problem), noise_std=problem.noise_std, strength=strength)
    return _run(problem, table, predict)


@METHODS.register
def twisted(problem: Problem, *, num_particles: int = 16, prior_var: float = 1.0) -> jax.Array:
    """The twisted diffusion sampler (Wu et al. 2023): of each measurement's particles one, by its weight.

    Args:
      num_particles: The number of particles of each measurement, ≥ 2.
      prior_var: The variance of the data, > 0.
    """
    table = samplers.ddpm(problem.schedule, problem.grid)
    found = particles.twisted(
        table,
        problem.predict,
        problem.operator,
        problem.y,
        problem.keys,
        noise_std=problem.noise_std,
        num_particles=num_particles,
        prior_var=prior_var,
        clip=problem.clip,
    )
    keys = jax.vmap(jax.random.fold_in, (0, None))(problem.keys, table.num_rows)
    chosen = jax.vmap(jax.random.categorical)(keys, jnp.log(found.weights))
    return found.x[jnp.arange(len(chosen)), chosen]


@METHODS.register
def repaint(problem: Problem, *, jump: int = 10, times: int = 10) -> jax.Array:
    """RePaint, for masks without noise (Lugmayr et al. 2022).

    Args:
      jump: The length of a stretch of steps that is repeated, ≥ 1.
      times: The number of its passes, ≥ 1; a sample takes `times` times the steps.

    Raises:
      ValueError: an operator that does not keep or drop each pixel.
    """
    ones = np.ones((1, *problem.operator.image_shape), np.float32)
    known = np.asarray(problem.operator(ones))
    if known.shape != ones.shape or not np.isin(known, (0.0, 1.0)).all():
        raise ValueError("repaint needs an operator that is a mask")
    table = editing.resampled(problem.schedule, samplers.ddpm(problem.schedule, problem.grid), jump=jump, times=times)
    return editing.inpaint(
        problem.schedule, table, problem.predict, problem.y, known.astype(bool), problem.keys, clip=problem.clip
    )


def _arguments(problem: Problem) -> tuple:
    return problem.predict, problem.schedule, problem.operator, problem.y


def _run(problem: Problem, table: Sampler, predict: Predict) -> jax.Array:
    x = initial_noise(problem.keys, problem.operator.image_shape, problem.y.dtype)
    return run_table(table, predict, x, problem.keys if table.is_stochastic else None, clip=problem.clip)


def _with_own_noise(problem: Problem, method, **options: float) -> jax.Array:
    """Runs a method that adds noise itself, on deterministic DDIM."""
    table = samplers.ddim(problem.schedule, problem.grid, rederive_eps=False)
    predict = method(
        problem.predict, table, problem.operator, problem.y, problem.keys, noise_std=problem.noise_std, **options
    )
    return _run(problem, table, predict)
