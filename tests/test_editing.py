import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import editing, process

SCHEDULE = dj.schedules.linear(50, beta_start=1e-3, beta_end=0.2)
MEAN, STD, RHO = 0.2, 0.6, 0.8


def pairs(schedule, x, t):
    """ε̂ of two correlated numbers, x0 ~ N(MEAN, STD²·[[1, RHO], [RHO, 1]])."""
    signal, noise = process.scales_at(schedule, x, t)
    covariance = STD**2 * jnp.array([[1.0, RHO], [RHO, 1.0]])
    total = signal[..., None] ** 2 * covariance + noise[..., None] ** 2 * jnp.eye(2)
    return noise * jnp.linalg.solve(total, (x - signal * MEAN)[..., None])[..., 0]


PREDICT = jax.tree_util.Partial(pairs, process.Scales.of(SCHEDULE))
FULL = dj.samplers.ddpm(SCHEDULE, dj.timesteps.full(50))
COUNT = 4000
# A table of few steps falls short of the variance; more passes do so more often.
FINE = dj.schedules.linear(400, beta_start=1e-4, beta_end=0.03)
FINE_PREDICT = jax.tree_util.Partial(pairs, process.Scales.of(FINE))
FINE_STEPS = dj.samplers.ddpm(FINE, dj.timesteps.full(400))


@pytest.mark.parametrize(
    "steps",
    [FULL, dj.samplers.ddim(SCHEDULE, dj.timesteps.trailing(50, 10)), dj.samplers.dpm_solver_pp(SCHEDULE, dj.timesteps.trailing(50, 10))],
)  # fmt: skip
def test_known_places_come_back_as_they_are(steps):
    image, keys = jnp.broadcast_to(jnp.array([1.5, jnp.nan]), (4, 2)), dj.sample_keys(0, 0, 4)
    image = jnp.where(jnp.array([True, False]), image, 0.0)
    x = editing.inpaint(SCHEDULE, steps, PREDICT, image, jnp.array([True, False]), keys, clip=1.0)
    np.testing.assert_allclose(x[:, 0], 1.5, rtol=1e-5)
    assert np.abs(x[:, 1]).max() <= 1 + 1e-5
    assert len(np.unique(x[:, 1])) == 4


def test_known_places_are_noised_to_every_level():
    """The law of a known place along the way is q(x_t | x_0)."""
    image = jnp.full((COUNT, 2), 1.5)
    keys = dj.sample_keys(0, 0, COUNT)
    known = jax.tree_util.Partial(lambda x0: jnp.full_like(x0, 1.5))
    for level in (39, 19):
        steps = dj.samplers.ddpm(SCHEDULE, np.arange(49, level - 1, -1))
        x = dj.sample(steps, PREDICT, editing.noised(SCHEDULE, image, 49, keys), keys, clip=known)
        np.testing.assert_allclose(x.mean(), SCHEDULE.sqrt_alpha_bars[level] * 1.5, atol=0.03)
        np.testing.assert_allclose(x.std(), SCHEDULE.sqrt_one_minus_alpha_bars[level], rtol=0.03)


def test_resampling_brings_the_unknown_to_its_conditional_law():
    """Given the other number, the mean of this one is MEAN + RHO·(other - MEAN): nearer, the more often it goes down."""
    image, known = jnp.full((COUNT, 2), 1.5), jnp.array([True, False])
    keys = dj.sample_keys(1, 0, COUNT)
    wanted = MEAN + RHO * (1.5 - MEAN)
    errors = []
    for times in (1, 8):
        steps = editing.resampled(FINE, FINE_STEPS, jump=10, times=times)
        x = editing.inpaint(FINE, steps, FINE_PREDICT, image, known, keys)
        errors.append(abs(float(x[:, 1].mean()) - wanted))
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 3
    assert float(x[:, 1].std()) == pytest.approx(STD * np.sqrt(1 - RHO**2), rel=0.12)


def test_going_back_up_keeps_the_law_of_unconditional_samples():
    steps = editing.resampled(FINE, FINE_STEPS, jump=30, times=3)
    assert steps.num_rows == 1200
    keys = dj.sample_keys(2, 0, COUNT)
    x = dj.sample(steps, FINE_PREDICT, dj.initial_noise(keys, (2,)), keys)
    plain = dj.sample(FINE_STEPS, FINE_PREDICT, dj.initial_noise(keys, (2,)), keys)
    np.testing.assert_allclose(np.mean(x, 0), np.mean(plain, 0), atol=0.04)
    np.testing.assert_allclose(np.cov(x.T), np.cov(plain.T), atol=0.03)


def test_a_row_that_goes_back_up_is_two_steps_in_one():
    steps = editing.resampled(SCHEDULE, FULL, jump=2, times=2)
    np.testing.assert_array_equal(steps.t_from[:6], [49, 48, 49, 48, 47, 46])
    np.testing.assert_array_equal(steps.t_to[:6], [48, 49, 48, 47, 46, 47])
    k = np.sqrt(SCHEDULE.alpha_bars[49] / SCHEDULE.alpha_bars[47])
    assert steps.a[1] == pytest.approx(k * FULL.a[1])
    assert steps.d[1] == pytest.approx(np.hypot(k * FULL.d[1], np.sqrt(1 - k**2)))
    for once, column in zip(
        jax.tree.leaves(editing.resampled(SCHEDULE, FULL, times=1)), jax.tree.leaves(FULL), strict=True
    ):
        np.testing.assert_allclose(once, column, rtol=1e-14)


def test_image_to_image_keeps_more_the_lower_it_starts():
    image, keys = jnp.full((COUNT, 2), 2.0), dj.sample_keys(3, 0, COUNT)
    distances = []
    for index in (5, 20, 49):
        grid = dj.timesteps.starting_at(dj.timesteps.full(50), index)
        x = editing.image_to_image(SCHEDULE, dj.samplers.ddpm(SCHEDULE, grid), PREDICT, image, keys)
        distances.append(float(jnp.mean(jnp.abs(x - image))))
    assert distances[0] < distances[1] < distances[2]
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.05)


def test_bad_input():
    image, keys = jnp.zeros((2, 2)), dj.sample_keys(0, 0, 2)
    grid = dj.timesteps.trailing(50, 5)
    kept = dj.samplers.ddim(SCHEDULE, grid, rederive_eps=False)
    with pytest.raises(ValueError, match=r"known of shape \(3,\) does not fit images of shape \(2, 2\)"):
        editing.inpaint(SCHEDULE, FULL, PREDICT, image, np.ones(3, bool), keys)
    with pytest.raises(ValueError, match="keeps the network's eps"):
        editing.inpaint(SCHEDULE, kept, PREDICT, image, np.ones(2, bool), keys)
    above = dj.samplers.ddim(SCHEDULE, dj.timesteps.full(50, end=0))
    with pytest.raises(ValueError, match="ends at level 0"):
        editing.inpaint(SCHEDULE, above, PREDICT, image, np.ones(2, bool), keys)
    with pytest.raises(ValueError, match="jump=0 and times=2 must be ≥ 1"):
        editing.resampled(SCHEDULE, FULL, jump=0, times=2)
    with pytest.raises(ValueError, match="history"):
        editing.resampled(SCHEDULE, dj.samplers.dpm_solver_pp(SCHEDULE, grid))
