from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax import samplers, schedules, timesteps

TABLES = [
    "betas", "alphas", "alpha_bars", "alpha_bars_prev", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars",
    "log_one_minus_alpha_bars", "log_snr", "sigma_bars", "sqrt_recip_alpha_bars", "sqrt_recipm1_alpha_bars", "posterior_variance",
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


def test_formulas_of_the_other_schedules():
    T, start, end = 100, 1e-3, 0.3
    roots = np.sqrt(start) + (np.sqrt(end) - np.sqrt(start)) * np.arange(T) / (T - 1)
    quadratic = schedules.quadratic(T, beta_start=start, beta_end=end)
    np.testing.assert_allclose(quadratic.betas, roots**2, rtol=1e-13)
    np.testing.assert_array_equal(schedules.scaled_linear(T, beta_start=start, beta_end=end).betas, quadratic.betas)
    u = -6 + 12 * np.arange(T) / (T - 1)
    sigmoid = schedules.sigmoid(T, beta_start=start, beta_end=end)
    np.testing.assert_allclose(sigmoid.betas, start + (end - start) / (1 + np.exp(-u)), rtol=1e-12)
    np.testing.assert_array_equal(schedules.constant(T, beta=end).betas, np.full(T, end))
    # Published end points: improved-diffusion's linear at T = 4000; SR3's 1e-6 … 1e-2 at T = 2000.
    assert schedules.linear(4000, per_thousand=True).alpha_bars[-1] == pytest.approx(4.25e-5, rel=2e-3)
    assert schedules.linear(2000, beta_start=1e-6, beta_end=1e-2).alpha_bars[-1] == pytest.approx(4.39e-5, rel=2e-3)


def test_jsd_falls_linearly_to_zero():
    s = schedules.jsd(50)
    np.testing.assert_allclose(s.alpha_bars, 1 - np.arange(1, 51) / 50, atol=1e-14)
    assert s.alpha_bars[-1] == 0
    assert np.isinf(s.sigma_bars[-1])
    assert np.isinf(s.log_snr[-1])


@given(betas)
def test_from_alpha_bars_is_the_inverse(values):
    s = schedules.from_betas(values)
    np.testing.assert_allclose(schedules.from_alpha_bars(s.alpha_bars).betas, s.betas, rtol=1e-8)


@given(betas)
def test_views(values):
    s = schedules.from_betas(values)
    np.testing.assert_allclose(np.exp(-s.log_snr / 2), s.sigma_bars, rtol=1e-9)
    np.testing.assert_allclose(1 / (1 + s.sigma_bars**2), s.alpha_bars, rtol=1e-9)


def test_zero_terminal_snr():
    s = schedules.linear()
    rescaled = schedules.zero_terminal_snr(s)
    assert rescaled.alpha_bars[-1] == 0
    assert rescaled.betas[-1] == 1
    assert rescaled.alpha_bars[0] == pytest.approx(s.alpha_bars[0], rel=1e-12)
    # √ᾱ is an affine map of what it was.
    slope = np.diff(rescaled.sqrt_alpha_bars) / np.diff(s.sqrt_alpha_bars)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-6)
    assert s.sqrt_alpha_bars[-1] == pytest.approx(0.0064, abs=5e-5)  # what is left of the signal without it


def test_respacing_keeps_the_levels():
    s = schedules.linear()
    indices = np.arange(0, 1000, 50)
    short = schedules.respace(s, indices)
    np.testing.assert_allclose(short.alpha_bars, s.alpha_bars[indices], rtol=1e-13)
    np.testing.assert_allclose(short.betas[1:], 1 - s.alpha_bars[indices][1:] / s.alpha_bars[indices][:-1], rtol=1e-12)
    np.testing.assert_allclose(schedules.respace(s, np.arange(1000)).betas, s.betas, rtol=1e-9)


def test_a_respaced_chain_is_the_strided_one():
    # Ancestral sampling on a grid of the long chain has the coefficients of the short chain, walked in full.
    s, grid = schedules.linear(), timesteps.leading(1000, 20)
    strided = samplers.ddpm(s, grid)
    short = samplers.ddpm(schedules.respace(s, grid[:-1][::-1]), timesteps.full(20))
    for name in ("a", "b", "d", "signal", "noise"):
        np.testing.assert_allclose(getattr(short, name), getattr(strided, name), rtol=1e-9, atol=1e-14)


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
        with pytest.raises(ValueError, match=rf"{t}.*must be within -1 \(clean\) … 9"):
            s.alpha_bar_at(t)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: schedules.linear(beta_start=0.02, beta_end=0.02),
            "beta_start=0.02, beta_end=0.02 must satisfy 0 < beta_start < beta_end ≤ 1",
        ),
        (lambda: schedules.linear(beta_start=0.02, beta_end=1e-4), "beta_end=0.0001"),
        (lambda: schedules.linear(beta_start=0.0), "beta_start=0.0"),
        (lambda: schedules.linear(beta_end=1.5), "beta_end=1.5"),
        (lambda: schedules.linear(0), "num_timesteps=0"),
        (lambda: schedules.linear(2.5), "num_timesteps=2.5"),
        (lambda: schedules.linear(10**12), "num_timesteps=1000000000000 must be a whole number within 1 … 1000000"),
        (lambda: schedules.linear("10"), "num_timesteps='10' must be"),
        (lambda: schedules.linear(None), "num_timesteps=None must be"),
        (lambda: schedules.linear(float("nan")), "num_timesteps=nan must be"),
        (lambda: schedules.linear(float("inf")), "num_timesteps=inf must be"),
        (lambda: schedules.linear(True), "num_timesteps=True must be"),
        (lambda: schedules.linear(beta_start=1e-300), r"betas\[0\]=1e-300 must be within"),
        (lambda: schedules.linear(beta_end=float("nan")), "beta_end=nan"),
        (lambda: schedules.constant(beta=0.9), "alpha_bar is 0 at t="),
        (lambda: schedules.constant(beta=float("nan")), "beta=nan"),
        (lambda: schedules.cosine(s=1e12), r"s=1000000000000.0 must be within \[0, 100\]"),
        (lambda: schedules.cosine(s=float("inf")), "s=inf"),
        (lambda: schedules.cosine(max_beta=float("nan")), "max_beta=nan"),
        (lambda: schedules.sigmoid(sigmoid_range=float("inf")), "sigmoid_range=inf"),
        (lambda: schedules.sigmoid(sigmoid_range=1e12), "sigmoid_range=1000000000000.0 must be within"),
        (lambda: schedules.cosine(s=-1), "s=-1 must be within"),
        (lambda: schedules.cosine(max_beta=1.0), "max_beta=1.0"),
        (lambda: schedules.cosine(s=float("nan")), "s=nan"),
        (lambda: schedules.linear(10, per_thousand=True), "beta_end=0.02 must .* after scaling by 100"),
        (lambda: schedules.quadratic(beta_start=0.5, beta_end=0.1), "beta_end=0.1"),
        (lambda: schedules.sigmoid(beta_start=0.5, beta_end=0.1), "beta_end=0.1"),
        (lambda: schedules.sigmoid(sigmoid_range=0), "sigmoid_range=0"),
        (lambda: schedules.constant(beta=0.0), "beta=0.0 must be within"),
        (lambda: schedules.from_alpha_bars([0.9, 0.9]), r"alpha_bars\[1\]=0.9 must be within \[0, 0.9\)"),
        (lambda: schedules.from_alpha_bars([1.0]), r"alpha_bars\[0\]=1.0"),
        (lambda: schedules.from_alpha_bars([0.5, -0.1]), r"alpha_bars\[1\]=-0.1"),
        (lambda: schedules.from_alpha_bars([]), "shape"),
        (lambda: schedules.zero_terminal_snr(schedules.linear(1)), "num_timesteps=1"),
        (lambda: schedules.respace(schedules.linear(10), [3, 2]), "ascends strictly"),
        (lambda: schedules.respace(schedules.linear(10), [-1, 2]), "must be within 0 … 9|within -1"),
        (lambda: schedules.respace(schedules.linear(10), [3, 10]), "must be within 0 … 9|within -1"),
        (lambda: schedules.from_betas([0.1, 0.0]), r"betas\[1\]=0.0"),
        (lambda: schedules.from_betas([0.1, np.nan]), r"betas\[1\]=nan"),
        (lambda: schedules.from_betas([]), "shape"),
        (lambda: schedules.from_betas([[0.1]]), "shape"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
