from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from diffjax import schedules, timesteps

RULES = [
    timesteps.leading,
    timesteps.trailing,
    partial(timesteps.trailing, rounding="floor"),
    timesteps.linspace,
    timesteps.quadratic,
    partial(timesteps.quadratic, last=True),
    timesteps.exponential,
]
STARTS_AT_THE_TOP = [1, 2, 3, 5, 6]  # of RULES


def sizes(end=-1):
    return st.integers(2, 1200).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total - 1 - end)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("end", [-1, 0])
@given(data=st.data())
def test_every_rule_gives_exactly_s_different_steps(rule, end, data):
    total, steps = data.draw(sizes(end))
    grid = rule(total, steps, end=end)
    assert grid.dtype == np.int32
    assert grid.shape == (steps + 1,)
    assert np.all(np.diff(grid) < 0)
    assert grid[0] < total
    assert grid[-1] == end
    if RULES.index(rule) in STARTS_AT_THE_TOP:
        assert grid[0] == total - 1


@given(size=sizes())
def test_formulas_of_diffusers(size):
    total, steps = size
    leading = (np.arange(steps) * (total // steps)).round()[::-1]
    np.testing.assert_array_equal(timesteps.leading(total, steps)[:-1], leading)
    trailing = np.round(np.arange(total, 0, -total / steps)) - 1
    np.testing.assert_array_equal(timesteps.trailing(total, steps)[:-1], trailing[:steps])
    if steps > 1:
        linspace = np.linspace(0, total - 1, steps).round()[::-1]
        np.testing.assert_array_equal(timesteps.linspace(total, steps)[:-1], linspace)


def test_lists_of_ten_steps():
    assert timesteps.leading(1000, 10).tolist() == [*range(900, -1, -100), -1]
    assert timesteps.leading(1000, 10, offset=1).tolist() == [*range(901, 0, -100), -1]
    assert timesteps.trailing(1000, 10).tolist() == [*range(999, 0, -100), -1]
    assert timesteps.linspace(1000, 10).tolist() == [*range(999, -1, -111), -1]
    assert timesteps.full(4).tolist() == [3, 2, 1, 0, -1]
    assert timesteps.linspace(1000, 1).tolist() == [999, -1]


@given(size=sizes())
def test_truncated_linspace(size):
    """`linspace(T, 0, S+1).long() - 1` and `linspace(-1, T-1, S+1).int()`, by exact arithmetic."""
    total, steps = size
    exact = [int(Fraction(total * (steps - i), steps)) - 1 for i in range(steps + 1)]
    assert timesteps.trailing(total, steps, rounding="floor").tolist() == exact
    if total % steps == 0:
        assert timesteps.trailing(total, steps).tolist() == exact


@given(size=sizes())
def test_ddims_own_lists(size):
    """The lists of ermongroup/ddim: `range(0, T, T//S)`, and the squares, of which repeats are moved apart."""
    total, steps = size
    uniform = timesteps.uniform(total, stride=total // steps)
    assert uniform.tolist() == [*list(range(0, total, total // steps))[::-1], -1]
    squares = [int(s) for s in np.linspace(0, np.sqrt(total * 0.8), steps) ** 2]
    if max(squares) < total:
        historical = timesteps.quadratic(total, steps, allow_repeats=True)
        assert historical.tolist() == [*squares[::-1], -1]
    if len(set(squares)) == steps and max(squares) < total:
        assert timesteps.quadratic(total, steps).tolist() == [*squares[::-1], -1]


@given(st.integers(2, 300).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total - 1))))
def test_lists_with_the_last_index_in_front(size):
    """`list(range(0, T, tau)) + [T-1]`, and tau squares and T-1, as one tutorial walks them down to 0."""
    total, tau = size
    uniform = [*range(0, total, tau), total - 1]
    assert timesteps.uniform(total, stride=tau, last=True, end=0).tolist() == sorted(set(uniform), reverse=True)
    squares = [int(s) for s in np.linspace(0, np.sqrt(total * 0.8), tau) ** 2] + [total - 1]
    if tau > 1 and len(set(squares)) == tau + 1:
        assert timesteps.quadratic(total, tau, last=True, end=0).tolist() == squares[::-1]
    if tau > 1:
        repeating = timesteps.quadratic(total, tau, last=True, end=0, allow_repeats=True)
        assert repeating.tolist() == [*squares[:0:-1], 0]


def test_how_often_the_historical_lists_go_wrong():
    def moved(steps):
        return timesteps.quadratic(1000, steps, allow_repeats=True)

    assert [len(np.unique(moved(steps))) - 1 for steps in (20, 30, 50, 100, 1000)] == [20, 29, 49, 96, 688]
    assert len(timesteps.uniform(1000, stride=1000 // 30)) - 1 == 31
    assert len(timesteps.uniform(1000, stride=1000 // 128)) - 1 == 143
    # "ddimN" is refused for 938 of 1000.
    refused = 0
    for count in range(1, 1001):
        try:
            timesteps.sections(1000, f"ddim{count}")
        except ValueError:
            refused += 1
    assert refused == 938


def space_timesteps(total, counts):
    """improved-diffusion's rule, written down again from its description."""
    chosen, start = [], 0
    for k, count in enumerate(counts):
        size = total // len(counts) + (k < total % len(counts))
        stride = 1 if count <= 1 else (size - 1) / (count - 1)
        position = 0.0
        for _ in range(count):
            chosen.append(start + round(position))
            position += stride
        start += size
    return sorted(set(chosen))


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5).flatmap(
        lambda counts: st.tuples(st.just(counts), st.integers(len(counts) * max(counts), 2000))
    )
)
def test_section_counts(size):
    counts, total = size
    expected = [*space_timesteps(total, counts)[::-1], -1]
    assert timesteps.sections(total, counts).tolist() == expected
    assert timesteps.sections(total, ",".join(map(str, counts))).tolist() == expected


def test_section_counts_by_hand():
    assert timesteps.sections(1000, "10").tolist() == [*range(999, -1, -111), -1]
    assert timesteps.sections(1000, [250])[:4].tolist() == [999, 995, 991, 987]
    assert timesteps.sections(1000, "ddim50").tolist() == [*range(980, -1, -20), -1]


def test_quadratic_and_exponential_are_what_their_names_say():
    quadratic = timesteps.quadratic(10_000, 50)[:-1][::-1]
    np.testing.assert_allclose(np.diff(np.sqrt(quadratic[10:])), np.sqrt(8000) / 49, rtol=0.03)
    exponential = timesteps.exponential(100_000, 20)[:-1]
    np.testing.assert_allclose(
        np.log((exponential[1:-8] + 1) / (exponential[:-9] + 1)), -np.log(100_000) / 19, rtol=0.01
    )


@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_lands_next_to_its_levels(schedule, rho):
    grid = timesteps.karras(schedule, 12, rho=rho, rounded=True)
    assert len(grid) == 13
    assert grid[0] == 999
    assert grid[-1] == -1
    i = np.arange(12) / 11
    top, bottom = schedule.sigma_bars[-1] ** (1 / rho), schedule.sigma_bars[0] ** (1 / rho)
    levels = (top + i * (bottom - top)) ** rho
    log_sigma_bars = np.log(schedule.sigma_bars)
    nearest = [int(np.argmin(np.abs(log_sigma_bars - np.log(level)))) for level in levels]
    assert set(nearest) <= set(grid.tolist())  # what was nearest twice has also a free neighbour
    if len(set(nearest)) == 12:
        assert grid[:-1].tolist() == nearest


LEVEL_SPACINGS = {
    "karras": (timesteps.karras, lambda low, high: np.linspace(high ** (1 / 7), low ** (1 / 7), 9) ** 7),
    "log_snr": (timesteps.log_snr, lambda low, high: np.geomspace(high, low, 9)),
    "beta": (
        timesteps.beta,
        lambda low, high: low + (high - low) * scipy.stats.beta.ppf(1 - np.linspace(0, 1, 9), 0.6, 0.6),
    ),
}


@pytest.mark.parametrize("name", LEVEL_SPACINGS)
@pytest.mark.parametrize("limits", [(None, None), (0.005, 30.0)])
def test_spacings_by_levels_have_exactly_their_levels(name, limits):
    spacing, formula = LEVEL_SPACINGS[name]
    schedule = schedules.linear()
    low, high = limits
    grid = spacing(schedule, 9, sigma_min=low, sigma_max=high)
    assert grid.dtype == np.float64
    assert grid[-1] == -1
    levels = formula(low or schedule.sigma_bars[0], high or schedule.sigma_bars[-1])
    alpha_bar = schedule.alpha_bar_at(grid[:-1])
    np.testing.assert_allclose(np.sqrt((1 - alpha_bar) / alpha_bar), levels, rtol=1e-11)
    np.testing.assert_array_equal(spacing(schedule, 8, sigma_min=low, sigma_max=high, end=0), grid[:-1])
    np.testing.assert_allclose(timesteps.from_sigmas(schedule, np.append(levels, 0.0)), grid, rtol=1e-12, atol=1e-11)
    rounded = spacing(schedule, 9, sigma_min=low, sigma_max=high, rounded=True)
    assert rounded.dtype == np.int32
    assert np.max(np.abs(rounded - grid)) < 2  # a repeat moves to a free neighbour
    assert timesteps.from_sigmas(schedule, np.append(levels, 0.0), rounded=True).tolist() == rounded.tolist()


def test_sections_and_karras_may_end_at_0():
    assert timesteps.sections(1000, "10,10", end=0).tolist() == timesteps.sections(1000, "10,10")[:-1].tolist()
    assert timesteps.sections(1000, "ddim50", end=0).tolist() == timesteps.sections(1000, "ddim50")[:-1].tolist()
    grid = timesteps.karras(schedules.linear(), 12, rounded=True, end=0)
    assert grid.tolist() == timesteps.karras(schedules.linear(), 13, rounded=True)[:-1].tolist()


def test_explicit_and_starting_at():
    ays = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    grid = timesteps.explicit(1000, ays)
    assert grid.tolist() == [*ays, -1]
    assert timesteps.starting_at(grid, 700).tolist() == [700, 645, 545, 455, 343, 233, 124, 24, -1]
    assert timesteps.starting_at(grid, 736).tolist() == grid[2:].tolist()
    for index in (1000, -1):
        with pytest.raises(ValueError, match=f"index={index} is out of range: allowed is 0 … 999"):
            timesteps.starting_at(grid, index)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: timesteps.trailing(1000, 10, rounding="up"), "rounding='up'"),
        (lambda: timesteps.trailing(1000, 10, end=5), "end=5 is not one of -1"),
        (lambda: timesteps.trailing(1000, 1000, end=0), "num_steps=1000 is out of range: allowed is 1 … 999"),
        (lambda: timesteps.uniform(1000, stride=0), "stride=0 is out of range: allowed is 1 … 1000"),
        (lambda: timesteps.uniform(1000, stride=1001), "stride=1001"),
        (lambda: timesteps.quadratic(1000, 10, fraction=0.0), "fraction=0.0"),
        (lambda: timesteps.sections(1000, "10,a"), "counts='10,a' must be numbers"),
        (lambda: timesteps.sections(100, "60,20"), r"counts\[0\]=60 is out of range: allowed is 1 … 50"),
        (lambda: timesteps.sections(1000, "ddim501"), "counts='ddim501': no whole stride gives exactly 501 of 1000"),
        (lambda: timesteps.sections(1000, "ddim"), "counts='ddim'"),
        (lambda: timesteps.sections(1000, []), "counts has 0 sections"),
        (lambda: timesteps.trailing(1000, 10.0), "num_steps=10.0 is out of range"),
        (lambda: timesteps.karras(schedules.linear(), 10, rho=0), "rho=0"),
        (lambda: timesteps.karras(schedules.linear(), 10, rho=float("nan")), "rho=nan"),
        (lambda: timesteps.karras(schedules.linear(), 10, rho=float("inf")), "rho=inf"),
        (lambda: timesteps.karras(schedules.linear(), 10, rho=1e12), r"rho=1000000000000.0 must be within \(0, 100\]"),
        (lambda: timesteps.karras(schedules.linear(), 10, rho=1e-12), "rho=1e-12 must be larger"),
        (lambda: timesteps.uniform(1000, stride=float("nan")), "stride=nan"),
        (lambda: timesteps.uniform(1000, stride=float("inf")), "stride=inf"),
        (lambda: timesteps.quadratic(1000, 10, fraction=float("nan")), "fraction=nan"),
        (lambda: timesteps.sections(1000, "ddim²"), "counts='ddim²'"),
        (lambda: timesteps.sections(1000, [2.5]), r"counts\[0\]=2.5"),
        (lambda: timesteps.sections(10, [1] * 11), "counts has 11 sections"),
        (lambda: timesteps.explicit(1000, []), "indices=.. must have at least one index"),
        (lambda: timesteps.explicit(1000, ["a"]), "dtype"),
        (lambda: timesteps.karras(schedules.jsd(), 10), "sigma_max is missing"),
        (lambda: timesteps.karras(schedules.linear(), 0), "num_steps=0"),
        (lambda: timesteps.log_snr(schedules.linear(), 5, sigma_min=9.0, sigma_max=2.0), "sigma_min=9, sigma_max=2"),
        (lambda: timesteps.log_snr(schedules.linear(), 5, sigma_max=200.0), "the largest level"),
        (lambda: timesteps.beta(schedules.linear(), 5, alpha=0.0), "alpha=0.0"),
        (lambda: timesteps.from_sigmas(schedules.linear(), [3.0]), "at least two levels"),
        (lambda: timesteps.from_sigmas(schedules.linear(), [1.0, 3.0, 0.0]), "must descend"),
        (lambda: timesteps.from_sigmas(schedules.linear(), [500.0, 3.0]), "within 0 … 157.4"),
        (lambda: timesteps.explicit(1000, [5, 7]), "from 5 to 7 at step 0|from 7 to -1"),
        (lambda: timesteps.leading(1000, 10, offset=1, end=0), "offset=1"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5])
def test_invalid_number_of_steps(rule, steps):
    with pytest.raises(ValueError, match=rf"num_steps={steps} is out of range: allowed is 1 … 1000"):
        rule(1000, steps)


def test_offset_that_leaves_the_schedule():
    with pytest.raises(ValueError, match="offset=100 puts index 1000 outside 0 … 999"):
        timesteps.leading(1000, 10, offset=100)
    with pytest.raises(ValueError, match="offset=-1"):
        timesteps.leading(1000, 10, offset=-1)


def test_check_accepts_both_directions():
    assert timesteps.check([5, 2, -1], 10).dtype == np.int32
    assert timesteps.check([-1, 2, 5], 10).tolist() == [-1, 2, 5]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([3], "shape"),
        ([[3, 1]], "shape"),
        ([3, float("nan"), 0], "leaves -1 … 9"),
        ([9.5, 5.0, -1.0], "leaves -1 … 9"),
        ([10, 5, -1], "leaves -1 … 9"),
        ([5, -2], "leaves -1 … 9"),
        ([5, 5], "from 5 to 5 at step 0"),
        ([5, -1, -1], "from -1 to -1 at step 1"),
        ([5, 2, 3], "from 2 to 3 at step 1"),
    ],
)
def test_check_of_invalid_grids(grid, words):
    with pytest.raises(ValueError, match=words):
        timesteps.check(grid, 10)


def test_repeats_of_long_schedules_move_in_time():
    grid = timesteps.exponential(100_000, 50_000)
    assert len(grid) == 50_001
    assert np.all(np.diff(grid) < 0)


def test_one_step_of_linspace_as_in_diffusers():
    assert timesteps.linspace(10, 1, as_diffusers=True).tolist() == [0, -1]
    assert timesteps.linspace(10, 1).tolist() == [9, -1]
