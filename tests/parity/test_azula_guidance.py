"""Whole runs of posterior sampling against azula 0.11.1 in float64: same network, noise, schedule and measurement."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
azula = pytest.importorskip("azula", reason="azula is not installed (pip install --no-deps azula einops)")

from azula import guidance, sample  # noqa: E402
from azula.denoise import Denoiser, DiracPosterior  # noqa: E402

import diffjax as dj  # noqa: E402
from diffjax import inverse, samplers, schedules  # noqa: E402
from diffjax.noise import sample_noise  # noqa: E402
from diffjax.prediction import Prediction  # noqa: E402

SIZE, STD = 6, 0.3
SCHEDULE = schedules.linear(30, beta_start=0.005, beta_end=0.3)
GRID = np.array([29, 24, 19, 14, 9, 4, -1])
RNG = np.random.default_rng(0)
WEIGHTS, MATRIX, Y = RNG.normal(size=(SIZE, SIZE)) / 2, RNG.normal(size=(3, SIZE)), RNG.normal(size=(1, 3))
A = torch.from_numpy(MATRIX)

pytestmark = pytest.mark.usefixtures("x64")


def network(x, t):
    """x̂0 = Wᵀ·tanh(W·x), whose Jacobian is symmetric and positive, as that of a denoiser must be."""
    x0 = jnp.tanh(x @ jnp.asarray(WEIGHTS).T) @ jnp.asarray(WEIGHTS)
    signal, noise = (
        jnp.asarray(table)[t][:, None] for table in (SCHEDULE.sqrt_alpha_bars, SCHEDULE.sqrt_one_minus_alpha_bars)
    )
    return Prediction(x0, (x - signal * x0) / noise)


class TheirNetwork(Denoiser):
    def schedule(self, t):
        t = int(t)
        scales = (SCHEDULE.sqrt_alpha_bars[t], SCHEDULE.sqrt_one_minus_alpha_bars[t]) if t >= 0 else (1.0, 0.0)
        return tuple(torch.tensor(scale, dtype=torch.float64) for scale in scales)

    def forward(self, x, t):
        weights = torch.from_numpy(WEIGHTS)
        return DiracPosterior(torch.tanh(x @ weights.T) @ weights)


def theirs(sampler, x, noises, monkeypatch):
    """Steps through the grid with the given noise in each step."""
    x, left = torch.from_numpy(np.array(x)), iter(noises)
    monkeypatch.setattr(torch, "randn_like", lambda _: torch.from_numpy(np.array(next(left))))
    for t, s in itertools.pairwise(GRID):
        x = sampler.step(x, torch.tensor(t), torch.tensor(s))
    return x.detach().numpy()


def measure(x):
    return x @ A.T


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", ["dps", "pgdm", "mmps", "diffpir"])
def test_whole_runs(name, monkeypatch):
    operator, plain = inverse.operators.matrix(MATRIX, (SIZE,)), jax.tree_util.Partial(network)
    ddpm = samplers.ddpm(SCHEDULE, GRID)
    y, denoiser = torch.from_numpy(Y), TheirNetwork()
    if name == "dps":
        sampler, predict = ddpm, inverse.dps(plain, ddpm, operator, Y, scale=0.7)
        other = guidance.DPSSampler(denoiser, y, measure, zeta=0.7)
    elif name == "pgdm":
        # azula's η is the square of the paper's.
        sampler = samplers.ddim(SCHEDULE, GRID, eta=0.5)
        predict = inverse.pigdm(plain, SCHEDULE, operator, Y, published=True)
        back = torch.from_numpy(np.linalg.pinv(MATRIX))
        other = guidance.PGDMSampler(denoiser, y, measure, lambda y: y @ back.T, eta=0.25)
    elif name == "mmps":
        sampler, predict = ddpm, inverse.mmps(plain, SCHEDULE, operator, Y, noise_std=STD, iterations=2)
        guided = guidance.MMPSDenoiser(denoiser, y, measure, lambda v: STD**2 * v, solver="gmres", iterations=2)
        other = sample.DDPMSampler(guided)
    else:
        sampler, predict = ddpm, inverse.diffpir(plain, SCHEDULE, operator, Y, noise_std=STD, strength=5.0)
        guided = guidance.DiffPIRDenoiser(denoiser, y, measure, STD**2, lmbda=5.0, solver="gmres", iterations=SIZE)
        other = sample.DDPMSampler(guided)
    keys = dj.sample_keys(0, 0, 1)
    x = dj.initial_noise(keys, (SIZE,), jnp.float64)
    noises = [sample_noise(keys, row, (SIZE,), jnp.float64) for row in range(len(GRID) - 1)]
    found = dj.sample(sampler, predict, x, keys)
    np.testing.assert_allclose(found, theirs(other, x, noises, monkeypatch), rtol=1e-8, atol=1e-10)
    assert np.abs(found - dj.sample(sampler, plain, x, keys)).max() > 0.05
