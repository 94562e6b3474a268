"""Gaussian mixtures: data whose exact network, density and posterior under a linear measurement are known.

    data = GaussianMixture.of([0.5, 0.5], means, covariances)
    predict = data.predict(schedule)                     # exact x̂0 and ε̂
    exact = data.posterior(operator, y, noise_std)       # a mixture again

So that a method of posterior sampling, of this package or your own, can be compared with the truth.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.inverse.operators import Operator, as_matrix
from diffjax.prediction import Prediction
from diffjax.schedules import NoiseSchedule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GaussianMixture:
    """A mixture of K Gaussians on images of N elements; built by `of`, float64."""

    weights: ArrayLike
    """`[K]`, of sum 1."""
    means: ArrayLike
    """`[K, N]`."""
    variances: ArrayLike
    """`[K, N]`: the eigenvalues of the covariances, ≥ 0."""
    axes: ArrayLike
    """`[K, N, N]`: their eigenvectors, in columns."""
    image_shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        image_shape: tuple[int, ...] | None = None,
    ) -> "GaussianMixture":
        """Builds a mixture.

        Args:
          weights: `[K]`, > 0; they are divided by their sum.
          means: `[K, N]`.
          covariances: `[K, N, N]`, symmetric and positive semidefinite.
          image_shape: the shape of one image, of N elements; None: (N,).

        Raises:
          ValueError: arrays whose shapes do not fit, weights that are not > 0, or a covariance that is not symmetric
            and positive semidefinite.
        """
        weights, means, covariances = (np.asarray(part, np.float64) for part in (weights, means, covariances))
        count, size = means.shape if means.ndim == 2 else (0, 0)
        shape = (size,) if image_shape is None else tuple(image_shape)
        if weights.shape != (count,) or covariances.shape != (count, size, size) or np.prod(shape) != size:
            raise ValueError(
                f"weights, means, covariances and images of shapes {weights.shape}, {means.shape}, {covariances.shape} "
                f"and {shape} must be [K], [K, N], [K, N, N] and of N elements"
            )
        if not np.all(weights > 0.0):
            raise ValueError(f"weights={weights.tolist()} must be > 0")
        variances, axes = np.linalg.eigh(covariances)
        scale = np.max(np.abs(covariances), axis=(1, 2), initial=1e-300)[:, None]
        is_symmetric = np.allclose(covariances, covariances.swapaxes(1, 2), rtol=0.0, atol=1e-10 * scale.max())
        if not is_symmetric or np.any(variances < -1e-10 * scale):
            raise ValueError("covariances must be symmetric and positive semidefinite")
        return cls(
            weights=weights / weights.sum(),
            means=means,
            variances=np.maximum(variances, 0.0),
            axes=axes,
            image_shape=shape,
        )

    def __repr__(self):
        return f"GaussianMixture({len(self.weights)} modes, image_shape={self.image_shape})"

    @property
    def covariances(self) -> np.ndarray:
        """The covariance of each mode, `[K, N, N]`."""
        return np.einsum("kin,kn,kjn->kij", self.axes, self.variances, self.axes)

    def mean(self) -> np.ndarray:
        """Returns the mean of the data, `[N]`."""
        return np.asarray(self.weights) @ self.means

    def covariance(self) -> np.ndarray:
        """Returns the covariance of the data, `[N, N]`."""
        offsets = self.means - self.mean()
        between = np.einsum("k,ki,kj->ij", self.weights, offsets, offsets)
        return np.einsum("k,kij->ij", self.weights, self.covariances) + between

    def sample(self, key: jax.Array, num: int) -> jax.Array:
        """Samples images `[num, *image_shape]`, float64 in x64 mode."""
        return _sample(self, key, num)

    def shares(self, x: jax.Array, noise_var: ArrayLike = 1e-12) -> jax.Array:
        """Returns the probability of each mode for images with Gaussian noise, `[B, K]`: the share of samples in it."""
        return _shares(self, x, noise_var)

    def predict(self, schedule: NoiseSchedule) -> jax.tree_util.Partial:
        """Returns the exact network: E[x_0 | x_t] and the ε̂ that belongs to it, for `sample`."""
        return jax.tree_util.Partial(_predict, self, process.Scales.of(schedule))

    def posterior(self, operator: Operator, y: ArrayLike, noise_std: float) -> "GaussianMixture":
        """Returns p(x | y) of y = A·x + σ_y·noise for one measurement.

        Args:
          operator: A.
          y: one measurement, without a batch axis.
          noise_std: σ_y > 0.

        Raises:
          ValueError: σ_y that is not > 0, or a measurement of another size than A·x.
        """
        weights = as_matrix(operator)
        y = np.asarray(y, np.float64).ravel()
        if not noise_std > 0.0 or y.shape != weights.shape[:1]:
            raise ValueError(f"noise_std={noise_std} must be > 0, and y of {y.size} numbers have {len(weights)}")
        covariances = self.covariances
        seen = weights @ covariances @ weights.T + noise_std**2 * np.eye(len(weights))
        gain = np.linalg.solve(seen, weights @ covariances).swapaxes(1, 2)
        residuals = y - self.means @ weights.T
        _, log_det = np.linalg.slogdet(seen)
        log_weights = np.log(self.weights) - 0.5 * (
            log_det + np.einsum("km,km->k", residuals, np.linalg.solve(seen, residuals[..., None])[..., 0])
        )
        changed = covariances - gain @ weights @ covariances
        return GaussianMixture.of(
            np.maximum(np.exp(log_weights - log_weights.max()), 1e-300),
            self.means + np.einsum("knm,km->kn", gain, residuals),
            (changed + changed.swapaxes(1, 2)) / 2.0,
            self.image_shape,
        )

    def _log_probs(self, x, signal, noise_var):
        """Returns log w_k·N(x; s·m_k, s²·C_k + noise_var·I) + const. `[B, K]`, and E[x_0 | x, k] `[B, K, N]`."""
        weights, means, variances, axes = (
            jnp.asarray(part, x.dtype) for part in (self.weights, self.means, self.variances, self.axes)
        )
        signal, noise_var = (jnp.asarray(part, x.dtype).reshape(-1, 1, 1) for part in (signal, noise_var))
        total = signal**2 * variances + noise_var
        offsets = jnp.einsum("kij,bki->bkj", axes, x[:, None] - signal * means)
        log_probs = jnp.log(weights) - 0.5 * jnp.sum(offsets**2 / total + jnp.log(total), axis=2)
        within = means + jnp.einsum("kij,bkj->bki", axes, signal * variances / total * offsets)
        return log_probs, within


@partial(jax.jit, static_argnums=2)
def _sample(mixture, key, num):
    which, normal = jax.random.split(key)
    weights, means, variances, axes = map(
        jnp.asarray, (mixture.weights, mixture.means, mixture.variances, mixture.axes)
    )
    modes = jax.random.choice(which, len(weights), (num,), p=weights)
    deviations = jnp.sqrt(variances)[modes] * jax.random.normal(normal, (num, means.shape[1]), means.dtype)
    x = means[modes] + jnp.einsum("bij,bj->bi", axes[modes], deviations)
    return x.reshape(num, *mixture.image_shape)


@jax.jit
def _shares(mixture, x, noise_var):
    x = x.reshape(len(x), -1)
    return jax.nn.softmax(mixture._log_probs(x, jnp.ones(()), noise_var)[0], axis=1)


def _predict(mixture, scales, x, t):
    signal, noise = process.scales_at(scales, x, t, clean=False)
    flat = x.reshape(len(x), -1)
    log_probs, within = mixture._log_probs(flat, signal, noise**2)
    x0 = jnp.einsum("bk,bkn->bn", jax.nn.softmax(log_probs, axis=1), within).reshape(x.shape)
    return Prediction(x0, (x - signal * x0) / noise)
