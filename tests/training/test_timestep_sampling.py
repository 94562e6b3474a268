import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from diffjax import schedules
from diffjax.training import timestep_sampling

T = 20
SCHEDULE = schedules.linear(T)
WHOLE = ["uniform", "antithetic", "low_discrepancy", "importance"]
KEY = jax.random.key(3)


def draw(kind, batch_size=16, key=KEY, history=None, n=None):
    n = jnp.arange(batch_size) if n is None else n
    return timestep_sampling.sample_timesteps(kind, key, n, batch_size=batch_size, schedule=SCHEDULE, history=history)


def full_history(losses):
    """Each t has had the loss `losses[t]` ten times."""
    return timestep_sampling.LossHistory(
        jnp.tile(jnp.asarray(losses, jnp.float32)[:, None], 10), jnp.full(T, 10, jnp.int32)
    )


@pytest.mark.parametrize("kind", timestep_sampling.TIMESTEP_SAMPLINGS)
def test_an_example_has_the_same_t_on_every_device(kind):
    history = full_history(1.0 + np.arange(T))
    whole = draw(kind, history=history)
    np.testing.assert_array_equal(draw(kind, n=jnp.arange(4, 8), history=history).t, whole.t[4:8])
    assert not np.array_equal(draw(kind, key=jax.random.key(4), history=history).t, whole.t)


@pytest.mark.parametrize("kind", WHOLE)
def test_timesteps_are_uniform_or_weighted_to_be(kind):
    losses = 1.0 + np.arange(T)
    ts, weights = jax.jit(jax.vmap(lambda key: draw(kind, key=key, history=full_history(losses))))(
        jax.random.split(KEY, 1250)
    )
    mass = np.bincount(np.ravel(ts), np.ravel(weights), minlength=T) / ts.size
    assert len(mass) == T
    np.testing.assert_allclose(mass, 1 / T, atol=0.006)  # 5 standard deviations or more


@pytest.mark.parametrize("schedule", [schedules.edm(100), schedules.flow(100)], ids=["edm", "flow"])
@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.5, 1.0)])
def test_log_normal_levels(schedule, mean, std):
    """By Kolmogorov and Smirnov, on levels that the schedule has."""
    options = {"level_mean": mean, "level_std": std}
    sampled = timestep_sampling.sample_timesteps(
        "log_normal", KEY, jnp.arange(20_000), batch_size=20_000, schedule=schedule, options=options
    )
    assert sampled.t.dtype == jnp.float32
    np.testing.assert_array_equal(sampled.weight, 1.0)
    t = np.asarray(sampled.t, np.float64)
    assert 0 <= t.min() <= t.max() <= 99
    ab = schedule.alpha_bar_at(t[t > 0])
    levels = 0.5 * (np.log1p(-ab) - np.log(ab))
    low = 0.5 * np.log(1 / schedule.alpha_bars[0] - 1)
    assert np.mean(t == 0) == pytest.approx(stats.norm.cdf(low, mean, std), abs=0.003)
    within = stats.truncnorm((low - mean) / std, np.inf, mean, std)
    assert stats.kstest(levels, within.cdf).pvalue > 1e-3
    # The same as logit-normal times of the linear path (SD3).
    signal, noise = np.sqrt(ab), np.sqrt(1 - ab)
    np.testing.assert_allclose(special.logit(noise / (signal + noise)), levels, atol=1e-6)


def test_levels_beyond_a_schedule_are_its_ends():
    schedule = schedules.edm(100, sigma_min=1.0, sigma_max=2.0)
    for mean, end in ((-50.0, 0), (50.0, 99)):
        sampled = timestep_sampling.sample_timesteps(
            "log_normal", KEY, jnp.arange(8), batch_size=8, schedule=schedule, options={"level_mean": mean}
        )
        np.testing.assert_array_equal(sampled.t, end)


def test_which_samplings_have_real_times():
    found = {
        kind: timestep_sampling.has_real_times(kind, SCHEDULE, {}) for kind in timestep_sampling.TIMESTEP_SAMPLINGS
    }
    assert found == dict.fromkeys(WHOLE, False) | {"log_normal": True}
    for options, words in (
        ({"level_std": 0.0}, "level_std=0.0 must be > 0"),
        ({"level_mean": np.nan}, "level_mean=nan must be finite"),
        ({"mean": 0.0}, "mean=0.0 is not an option here; the options are: level_mean, level_std"),
    ):
        with pytest.raises(ValueError, match=words):
            timestep_sampling.has_real_times("log_normal", SCHEDULE, options)


def test_antithetic_pairs():
    t = draw("antithetic").t
    np.testing.assert_array_equal(t[::2] + t[1::2], T - 1)
    assert len(np.unique(t)) > 4


def test_low_discrepancy_is_even_in_every_batch_and_uniform_for_every_example(monkeypatch):
    for key in jax.random.split(KEY, 20):
        assert set(np.bincount(draw("low_discrepancy", 2 * T + 4, key).t, minlength=T)) <= {2, 3}
    # All offsets there are: each example meets each t equally often.
    n, counts = jnp.arange(6), np.zeros((6, T))
    for offset in range(T * 6):
        monkeypatch.setattr(jax.random, "randint", lambda key, shape, low, high, offset=offset: offset)
        counts[n, timestep_sampling.low_discrepancy(KEY, n, 6, T)] += 1
    assert np.all(counts == 6)


def test_importance_is_uniform_until_each_t_has_ten_losses():
    history = full_history(1.0 + np.arange(T))
    history = history._replace(count=history.count.at[7].set(9))
    np.testing.assert_allclose(timestep_sampling.probabilities(history), 1 / T)
    np.testing.assert_array_equal(draw("importance", history=history).weight, 1)


def test_importance_samples_by_the_root_mean_square_and_is_unbiased():
    losses = np.arange(1.0, T + 1)
    spread = np.array([0.5, 1.5] * 5)  # of mean square 1.25
    history = full_history(losses)._replace(losses=jnp.asarray(losses[:, None] * spread, jnp.float32))
    p = np.asarray(timestep_sampling.probabilities(history), np.float64)
    np.testing.assert_allclose(p, 0.999 * losses / losses.sum() + 0.001 / T, rtol=1e-5)
    # The expectation of weight·loss, by enumerating t, is the uniform mean; and samples have those weights.
    sampled = draw("importance", 4000, history=history)
    np.testing.assert_allclose(sampled.weight, 1 / (T * p[sampled.t]), rtol=1e-5)
    weight = np.full(T, np.nan)
    weight[sampled.t] = sampled.weight
    assert np.sum(p * weight * losses**3) == pytest.approx(np.mean(losses**3), rel=1e-5)
    assert np.mean(sampled.t) == pytest.approx(np.sum(p * np.arange(T)), abs=0.4)


def test_history_keeps_the_last_ten_of_each_t():
    history, kept = timestep_sampling.empty_history(T), {t: [] for t in range(T)}
    record = jax.jit(timestep_sampling.record)
    rng = np.random.default_rng(0)
    for _ in range(8):
        t = rng.integers(0, 4, 48).astype(np.int32)  # more than ten of a t at once, and some t never
        losses = rng.random(48).astype(np.float32)
        history = record(history, t, losses)
        for index, loss in zip(t, losses, strict=True):
            kept[int(index)] = (kept[int(index)] + [loss])[-10:]
    for t in range(T):
        size = len(kept[t])
        np.testing.assert_array_equal(np.sort(history.losses[t])[10 - size :], np.sort(np.float32(kept[t])))
        assert (history.count[t] >= 10) == (size == 10)
