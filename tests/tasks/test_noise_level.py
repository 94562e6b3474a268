"""Noise levels: how they are sampled in training, and what a network that is conditioned on them sees."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from toys import SCHEDULE

import diffjax as dj
from diffjax.tasks import noise_level
from diffjax.tasks.base import Objective
from diffjax.tasks.noise_level import NoiseLevel


@pytest.mark.parametrize("uniform_in", noise_level.SAMPLINGS)
def test_noise_levels_have_their_distribution(uniform_in):
    """By Kolmogorov and Smirnov: √γ or γ is uniform within its interval; over all t it has the mixture's distribution."""
    alpha_bars = np.append(1.0, SCHEDULE.alpha_bars)
    ends = np.sqrt(alpha_bars) if uniform_in == "sqrt_alpha_bar" else alpha_bars
    rng = np.random.default_rng(0)
    t, u = rng.integers(0, 20, 20_000).astype(np.int32), rng.uniform(size=20_000).astype(np.float32)
    signal, noise = noise_level.noise_level(SCHEDULE, t, u, jnp.zeros((len(t), 1)), uniform_in=uniform_in)
    np.testing.assert_allclose(signal**2 + noise**2, 1.0, rtol=1e-6)
    value = np.asarray(signal[:, 0] if uniform_in == "sqrt_alpha_bar" else signal[:, 0] ** 2, np.float64)

    def cumulative(v):
        inside = np.clip((v[:, None] - ends[1:]) / (ends[:-1] - ends[1:]), 0.0, 1.0)
        return inside.mean(axis=1)

    assert stats.kstest(value, cumulative).pvalue > 1e-3
    in_one = (value[t == 7] - ends[8]) / (ends[7] - ends[8])
    assert stats.kstest(in_one, "uniform").pvalue > 1e-3


def test_the_two_distributions_differ():
    schedule = dj.schedules.from_betas([0.9])
    u = np.random.default_rng(0).uniform(size=2000).astype(np.float32)
    zeros, like = np.zeros(2000, np.int32), jnp.zeros((2000, 1))
    signal, _ = noise_level.noise_level(schedule, zeros, u, like, uniform_in="alpha_bar")
    low = np.sqrt(0.1)
    assert stats.kstest((np.asarray(signal)[:, 0] - low) / (1 - low), "uniform").pvalue < 1e-9
    with pytest.raises(ValueError, match="uniform_in='gamma' is not one of 'sqrt_alpha_bar', 'alpha_bar'"):
        noise_level.noise_level(schedule, zeros, u, like, uniform_in="gamma")


def test_noise_levels_next_to_clean_data_are_exact():
    schedule = dj.schedules.linear(2000, beta_start=1e-6, beta_end=0.01)
    for uniform_in in noise_level.SAMPLINGS:
        _, noise = noise_level.noise_level(
            schedule, jnp.zeros(1, jnp.int32), jnp.zeros(1), jnp.zeros((1, 1)), uniform_in=uniform_in
        )
        np.testing.assert_allclose(noise, np.sqrt(1e-6), rtol=1e-6)


@pytest.mark.parametrize("conditioning", ["sqrt_alpha_bar", "alpha_bar"])
def test_a_network_is_conditioned_on_the_level_of_its_input(conditioning):
    calls = []

    def network(x, value):
        calls.append((x, value))
        return jnp.zeros_like(x)

    x0, keys = jnp.full((3000, 1, 1, 1), 5.0), dj.sample_keys(0, 0, 3000)
    t, level = jnp.arange(3000) % 20, NoiseLevel(conditioning=conditioning, scale=10.0)
    noise_level.denoising(SCHEDULE, network, x0, t, keys, level, Objective(loss_norm="l1"))
    ((x, value),) = calls
    root = np.asarray(value) / 10 if conditioning == "sqrt_alpha_bar" else np.sqrt(np.asarray(value) / 10)
    noise = (np.asarray(x)[:, 0, 0, 0] - 5 * root) / np.sqrt(1 - root**2)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise, root)[0, 1]) < 0.06
