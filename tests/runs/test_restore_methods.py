"""Methods that restore: means of samples, cascades, other runs, and the search for a schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import process, schedules
from diffjax.data.pixels import to_float
from diffjax.errors import UserError
from diffjax.metrics.records import Figure
from diffjax.runs import restore, schedule_search


def test_averaging_lowers_the_error_as_the_number_of_samples():
    """If x ~ N(m, s²) given y, the squared error of the mean of N samples from m is s²/N."""
    mean, std = 0.3, 0.5
    schedule = dj.schedules.linear(20, beta_start=1e-3, beta_end=0.4)

    def predict(x, t):
        signal, noise = process.scales_at(schedule, x, t)
        return noise * (x - signal * mean) / (noise**2 + signal**2 * std**2)

    sampler = dj.samplers.ddpm(schedule, dj.timesteps.full(20))

    def sample(condition, keys):
        return dj.sample(sampler, predict, dj.initial_noise(keys, condition.shape[1:]), keys)

    condition, keys = jnp.zeros((2, 40, 40, 1)), dj.sample_keys(0, 0, 2)
    errors = {num: float(jnp.mean((restore.average(sample, condition, keys, num) - mean) ** 2)) for num in (1, 4, 16)}
    assert errors[1] / errors[4] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[16] == pytest.approx(16, rel=0.25)
    with pytest.raises(ValueError, match="num=0 must be ≥ 1"):
        restore.average(sample, condition, keys, 0)


def test_a_stage_of_a_cascade_takes_the_output_of_the_one_before():
    seen = []

    def brighten(condition, keys):
        seen.append(condition)
        return jnp.clip(condition + 0.1, -1, 1)

    low = np.full((2, 4, 4, 1), 100, np.uint8)
    first, second = restore.cascade([(brighten, (8, 8)), (brighten, (16, 16))], low, dj.sample_keys(0, 0, 2))
    assert first.shape == (2, 8, 8, 1)
    assert second.shape == (2, 16, 16, 1)
    np.testing.assert_allclose(seen[1], to_float(jnp.full((2, 16, 16, 1), first.max())), atol=1e-6)
    assert second.min() > first.max() > 100


def test_methods_in_turn_start_from_the_small_image():
    seen = []

    def unchanged(condition, keys):
        seen.append((condition.shape, keys))
        return condition

    low, keys = np.zeros((2, 3, 5, 1), np.float32), jax.random.split(jax.random.key(0), 2)
    stages = [
        restore.Method(unchanged, "a", "runs/a, step 1", "EMA 0.9"),
        restore.Method(unchanged, "b", "runs/b, step 2", "EMA 0.99"),
    ]
    both, first = restore.in_turn(stages, [2, 4]), restore.in_turn(stages[:1], [2, 4])
    assert both.restore(low, keys).shape == first.restore(low, keys).shape == (2, 24, 40, 1)
    assert [shape for shape, _ in seen] == [(2, 6, 10, 1), (2, 24, 40, 1), (2, 6, 10, 1)]
    # The first stage samples with the same keys alone.
    used = [jax.random.key_data(keys).tolist() for _, keys in seen]
    assert used[0] == used[2] != used[1]
    assert both.sampler == "a; then runs/b, step 2: b"
    assert both.source == first.source == "runs/a, step 1"
    assert (both.parameters, first.parameters) == ("EMA 0.9; then EMA 0.99", "EMA 0.9")


def test_candidates_end_where_they_say():
    ends = []
    for fields in schedule_search.candidates(25):
        assert fields["num_steps"] == 25
        section = {name.removeprefix("schedule."): value for name, value in fields.items() if "." in name}
        assert section.pop("name") == "linear"
        ends.append(schedules.linear(**section).alpha_bars[-1])
    np.testing.assert_allclose(ends, [1e-2, 1e-3, 1e-4] * 3, rtol=0.02)
    with pytest.raises(ValueError, match="num_steps=1 must be ≥ 2"):
        schedule_search.candidates(1)


def test_the_best_row_is_the_registry_s_direction():
    figures = {
        name: {metric: Figure(value) for metric in ("psnr", "ssim", "kernel", "lpips")}
        for name, value in zip("abc", (3.0, 1.0, 2.0), strict=True)
    }
    found = {metric: schedule_search.best(figures, metric) for metric in figures["a"]}
    assert found == {"psnr": "a", "ssim": "a", "kernel": "b", "lpips": "b"}
    with pytest.raises(UserError, match="frechet is not computed for these images; there are psnr, ssim, kernel"):
        schedule_search.best(figures, "frechet")
