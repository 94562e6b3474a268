from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax import schedules

TABLES = [
    "betas", "alphas", "alpha_bars", "alpha_bars_prev", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars",
    "log_one_minus_alpha_bars", "sqrt_recip_alpha_bars", "sqrt_recipm1_alpha_bars", "posterior_variance",
    "posterior_log_variance", "posterior_mean_coef_x0", "posterior_mean_coef_xt",
]  # fmt: skip

betas = st.lists(st.floats(1e-6, 0.5), min_size=2, max_size=30)


def test_linear_is_ddpms():
    schedule = schedules.linear()
    assert schedule.num_timesteps == 1000
    assert schedule.betas[0] == 1e-4
    assert schedule.betas[-1] == 0.02
    np.testing.assert_allclose(np.diff(schedule.betas), 0.0199 / 999, rtol=1e-9)
    # Published: ᾱ_T = 4.036e-5.
    assert schedule.alpha_bars[-1] == pytest.approx(4.0358e-5, rel=1e-4)


def test_alpha_bars_against_exact_rationals():
    schedule = schedules.linear(200)
    exact = Fraction(1)
    for t, beta in enumerate(schedule.betas):
        exact *= 1 - Fraction(float(beta))
        assert schedule.alpha_bars[t] == pytest.approx(float(exact), rel=1e-13)
        assert 1.0 - schedule.alpha_bars[t] == pytest.approx(float(1 - exact), rel=1e-12)


@pytest.mark.parametrize(("num_timesteps", "alpha_bar_end"), [(1000, 2.4e-9), (4000, 1.5e-10)])
def test_cosine_is_improved_diffusions(num_timesteps, alpha_bar_end):
    schedule = schedules.cosine(num_timesteps)
    assert np.sum(schedule.betas == 0.999) == 1
    assert schedule.betas[-1] == 0.999
    assert schedule.alpha_bars[-1] == pytest.approx(alpha_bar_end, rel=0.03)
    u = np.arange(1, num_timesteps) / num_timesteps
    f = np.cos((np.append(0, u) + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bars[:-1], f[1:] / f[0], rtol=1e-12)


@given(betas)
def test_tables_follow_from_their_definitions(values):
    s = schedules.from_betas(values)
    ab, ab_prev = np.cumprod(1 - s.betas), np.append(1, np.cumprod(1 - s.betas)[:-1])
    close = {"rtol": 1e-9, "atol": 1e-15}
    np.testing.assert_allclose(s.alpha_bars_prev * s.alphas, s.alpha_bars, **close)
    np.testing.assert_allclose(s.sqrt_alpha_bars**2 + s.sqrt_one_minus_alpha_bars**2, 1, **close)
    np.testing.assert_allclose(np.exp(s.log_one_minus_alpha_bars), 1 - ab, **close)
    np.testing.assert_allclose(s.sqrt_recip_alpha_bars * s.sqrt_alpha_bars, 1, **close)
    np.testing.assert_allclose(s.sqrt_recipm1_alpha_bars, np.sqrt((1 - ab) / ab), **close)
    # The posterior is the product of two Gaussians in x_{t-1}: precisions add up (t ≥ 1).
    np.testing.assert_allclose(
        1 / s.posterior_variance[1:], (s.alphas / s.betas)[1:] + 1 / (1 - ab_prev[1:]), rtol=1e-6
    )
    # Its mean, at x_t = √ᾱ_t x_0, is √ᾱ_{t-1} x_0.
    np.testing.assert_allclose(
        s.posterior_mean_coef_x0 + s.posterior_mean_coef_xt * s.sqrt_alpha_bars, np.sqrt(ab_prev), rtol=1e-7
    )


def test_log_variance_at_zero_is_that_of_the_next_step():
    s = schedules.linear()
    assert s.posterior_variance[0] == 0
    assert s.posterior_log_variance[0] == s.posterior_log_variance[1] == pytest.approx(-9.82, abs=5e-3)
    np.testing.assert_allclose(np.exp(s.posterior_log_variance[1:]), s.posterior_variance[1:], rtol=1e-13)
    assert np.isfinite(schedules.from_betas([0.5]).posterior_log_variance).all()


def test_tables_are_float64_and_read_only():
    s = schedules.cosine(10)
    for name in TABLES:
        table = getattr(s, name)
        assert table.dtype == np.float64
        assert table.shape == (10,)
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0
    with pytest.raises(AttributeError):
        s.betas = None


def test_a_schedule_does_not_share_memory_with_what_it_was_made_of():
    values = np.full(4, 0.1)
    s = schedules.from_betas(values)
    values[:] = 0.5
    assert s.betas[0] == 0.1


def test_alpha_bar_at():
    s = schedules.linear(10)
    np.testing.assert_array_equal(s.alpha_bar_at([-1, 0, 9]), [1.0, s.alpha_bars[0], s.alpha_bars[9]])
    for t in (-2, 10):
        with pytest.raises(ValueError, match=rf"{t}.*allowed are -1 \(clean\) … 9"):
            s.alpha_bar_at(t)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.linear(beta_start=0.02, beta_end=0.02), "beta_end=0.02: beta_end must exceed beta_start"),
        (lambda: schedules.linear(beta_start=0.02, beta_end=1e-4), "beta_end=0.0001"),
        (lambda: schedules.linear(beta_start=0.0), "beta_start=0.0"),
        (lambda: schedules.linear(beta_end=1.5), "beta_end=1.5"),
        (lambda: schedules.linear(0), "num_timesteps=0"),
        (lambda: schedules.linear(2.5), "num_timesteps=2.5"),
        (lambda: schedules.cosine(offset=-1), "offset=-1"),
        (lambda: schedules.cosine(max_beta=1.0), "max_beta=1.0"),
        (lambda: schedules.from_betas([0.1, 0.0]), r"betas\[1\]=0.0"),
        (lambda: schedules.from_betas([0.1, np.nan]), r"betas\[1\]=nan"),
        (lambda: schedules.from_betas([]), "shape"),
        (lambda: schedules.from_betas([[0.1]]), "shape"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
