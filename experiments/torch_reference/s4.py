"""S4: the usual `GaussianDiffusion` class of PyTorch tutorials, by index tables."""

import torch

from torch_reference.tables import AlphaBars, filled


class GaussianDiffusion:
    """Tables float64 `[T]`, cast to the state's dtype when they are looked up.

    float32_schedule: the fault that tables are built in float32.
    clamp_log: the fault (of likelihoods, not of samples) that log β̃_0 is log 1e-20 where β̃_1 should stand in.
    """

    def __init__(self, betas, *, float32_schedule=False, clamp_log=False):
        ab = AlphaBars(betas, float32_schedule=float32_schedule)
        self.betas = ab.betas.double()
        self.alphas_cumprod = ab.table
        self.alphas_cumprod_prev = torch.stack([ab[t - 1] for t in range(len(ab))])
        remaining = 1 - self.alphas_cumprod
        self.posterior_variance = self.betas * (1 - self.alphas_cumprod_prev) / remaining
        least = torch.tensor(1e-20, dtype=torch.float64) if clamp_log else self.posterior_variance[1]
        self.posterior_log_variance_clipped = torch.cat([least[None], self.posterior_variance[1:]]).log()
        self.posterior_mean_coef1 = self.betas * self.alphas_cumprod_prev.sqrt() / remaining
        self.posterior_mean_coef2 = (1 - self.alphas_cumprod_prev) * (1 - self.betas).sqrt() / remaining

    @property
    def timesteps(self):
        """T."""
        return len(self.betas)

    def q_sample(self, x_start, t, noise):
        """x_t ~ q(x_t | x_0) with the given noise (DDPM Eq. 4), t `int64[B]`."""
        return (
            _at(self.alphas_cumprod.sqrt(), t, x_start) * x_start
            + _at((1 - self.alphas_cumprod).sqrt(), t, x_start) * noise
        )

    def q_mean_variance(self, x_start, t):
        """(mean, variance, log-variance) of q(x_t | x_0)."""
        variance = _at(1 - self.alphas_cumprod, t, x_start)
        return _at(self.alphas_cumprod.sqrt(), t, x_start) * x_start, variance, variance.log()

    def q_posterior_mean_variance(self, x_start, x_t, t):
        """(mean, variance, log-variance) of q(x_{t-1} | x_t, x_0) (DDPM Eq. 7)."""
        mean = _at(self.posterior_mean_coef1, t, x_t) * x_start + _at(self.posterior_mean_coef2, t, x_t) * x_t
        log_variance = _at(self.posterior_log_variance_clipped, t, x_t)
        return mean, _at(self.posterior_variance, t, x_t), log_variance

    def predict_start_from_noise(self, x_t, t, eps):
        """x̂0 from ε̂."""
        return (
            _at((1 / self.alphas_cumprod).sqrt(), t, x_t) * x_t
            - _at((1 / self.alphas_cumprod - 1).sqrt(), t, x_t) * eps
        )

    def p_sample(self, eps_model, x_t, t, noise, *, clip=1.0):
        """x_{t-1} from x_t: the posterior at the (clipped) x̂0; no noise where t = 0."""
        x0 = self.predict_start_from_noise(x_t, t, eps_model(x_t, t).to(x_t.dtype))
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
        mean, _, log_variance = self.q_posterior_mean_variance(x0, x_t, t)
        noisy = _like(t != 0, x_t)
        return mean + noisy * (0.5 * log_variance).exp() * noise

    def p_sample_loop(self, eps_model, x, noise, *, dtype=torch.float64, clip=1.0, timesteps=None):
        """The T pictures `[T, B, …]`, each after its step (x_T itself is not among them).

        timesteps: the fault that the loop counts a name outside the object, which may be another T.
        """
        x = x.to(dtype)
        pictures = []
        for row, t in enumerate(reversed(range(self.timesteps if timesteps is None else timesteps))):
            x = self.p_sample(eps_model, x, filled(x, t), noise(row).to(dtype), clip=clip)
            pictures.append(x)
        return torch.stack(pictures)

    def picture_levels(self, *, level_off_by_one=False):
        """The level of each picture of `p_sample_loop`: T-2 … -1, where -1 is clean data.

        level_off_by_one: the fault of naming the level that the step came from: T-1 … 0.
        """
        return [self.timesteps - 2 - k + level_off_by_one for k in range(self.timesteps)]

    def x0_pictures(self, eps_model, pictures, *, level_off_by_one=False):
        """x̂0, not clipped, of each picture but the last, at its level: `[T - 1, B, …]`."""
        levels = self.picture_levels(level_off_by_one=level_off_by_one)
        return torch.stack(
            [
                self.predict_start_from_noise(x, filled(x, t), eps_model(x, filled(x, t)))
                for x, t in zip(pictures[:-1], levels[:-1], strict=True)
            ]
        )

    def bound_weight(self, *, variance_squared=False):
        """What ‖μ̃ - μ_θ‖² weighs in L_{t-1} for t > 0 with σ² = β̃: 1/(2β̃), `[T - 1]`.

        variance_squared: the fault 1/(2β̃²).
        """
        return 1 / (2 * self.posterior_variance[1:] ** (2 if variance_squared else 1))


def _at(table, t, x):
    return _like(table[t], x)


def _like(values, x):
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
