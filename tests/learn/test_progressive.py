"""Progressive distillation: one step of the student ends where two of the teacher's end, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import learn, losses, parameterization, process, schedules
from diffjax.learn.distillation import first_weight

MEAN, STD = 0.3, 0.5

pytestmark = pytest.mark.usefixtures("x64")

LINEAR = schedules.linear(64, beta_start=1e-3, beta_end=0.2)
ENDS_AT_0 = schedules.zero_terminal_snr(LINEAR)


def unscaled(schedule, x, t, target):
    """The inverse of `process.network_input`."""
    return x / process.network_input(schedule, jnp.ones_like(x), t, target)


def exact(schedule, wanted):
    """The network of Gaussian data that predicts ε, x_0, v or a velocity without an error, for the sampling loop."""

    def predict(x, t):
        x = unscaled(schedule, x, t, wanted)
        signal, noise = process.scales_at(schedule, x, t)
        x0 = MEAN + signal * STD**2 * (x - signal * MEAN) / (signal**2 * STD**2 + noise**2)
        return process.convert(schedule, x, t, x0, given="x0", wanted=wanted)

    return parameterization.from_target(predict, schedule, wanted)


def student_of(schedule, teacher, num_steps, clip=None):
    """The student whose loss is 0: its x̂0 is the target itself."""
    pairs = learn.StepPairs.of(schedule, num_steps)

    def predict(x, t):
        return learn.two_step_target(schedule, pairs, pairs.index(t), teacher, x, clip=clip)

    return parameterization.from_x0(predict, schedule)


def sampled(schedule, predict, num_steps, x, **options):
    table = dj.samplers.ddim(schedule, dj.timesteps.trailing(schedule.num_timesteps, num_steps))
    return np.asarray(dj.sample(table, predict, x, **options))


def flow(schedule, num_steps, x):
    """Where DDIM takes x on Gaussian data, by the scalar recursion of the mean and the standard deviation."""
    grid = dj.timesteps.trailing(schedule.num_timesteps, num_steps)
    for t, s in itertools.pairwise(grid):
        ab_t, ab_s = schedule.alpha_bars[t], schedule.alpha_bars[s] if s >= 0 else 1.0
        x0 = MEAN + np.sqrt(ab_t) * STD**2 * (x - np.sqrt(ab_t) * MEAN) / (ab_t * STD**2 + 1 - ab_t)
        x = np.sqrt(ab_s) * x0 + np.sqrt((1 - ab_s) / (1 - ab_t)) * (x - np.sqrt(ab_t) * x0)
    return x


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize(
    ("schedule", "wanted", "num_steps"),
    [(LINEAR, "eps", 8), (LINEAR, "x0", 3), (LINEAR, "flow", 1), (ENDS_AT_0, "v", 1), (ENDS_AT_0, "x0", 8)],
)
def test_one_step_ends_where_two_end(schedule, wanted, num_steps, noise):
    teacher = exact(schedule, wanted)
    both = sampled(schedule, teacher, 2 * num_steps, noise)
    one = sampled(schedule, student_of(schedule, teacher, num_steps), num_steps, noise)
    np.testing.assert_allclose(one, both, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(both, flow(schedule, 2 * num_steps, noise), rtol=1e-11, atol=1e-12)


def test_with_clipping_too(noise):
    """The student's x̂0 lies between two clipped ones, so clipping it changes nothing."""
    schedule = ENDS_AT_0
    teacher = exact(schedule, "v")
    both = sampled(schedule, teacher, 8, 3 * noise, clip=0.5)
    assert np.abs(both).max() == 0.5
    assert np.abs(both - sampled(schedule, teacher, 8, 3 * noise)).max() > 0.1
    student = student_of(schedule, teacher, 4, clip=0.5)
    for clip in (None, 0.5):
        one = sampled(schedule, student, 4, 3 * noise, clip=clip)
        np.testing.assert_allclose(one, both, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("schedule", [LINEAR, ENDS_AT_0])
def test_weights(schedule):
    """w by its definition; at clean data the target is the second prediction."""
    pairs = learn.StepPairs.of(schedule, 8)
    ratio = np.append(np.sqrt(schedule.alpha_bars / (1 - schedule.alpha_bars)), np.inf)
    t, m, s = ratio[pairs.start], ratio[pairs.middle], ratio[pairs.end]
    np.testing.assert_allclose(pairs.weight, (m - t) / (s - t), rtol=1e-10)
    assert pairs.end[-1] == -1
    assert pairs.weight[-1] == 0.0
    assert np.all((pairs.weight[:-1] > 0) & (pairs.weight[:-1] < 1))
    # A middle next to the start leaves all weight to the second prediction.
    assert first_weight(schedule, 9, 8, 2) < first_weight(schedule, 9, 4, 2)


def test_the_target_by_the_formula_of_the_paper():
    """x̃ = (z″ - (σ″/σ) z) / (α″ - (σ″/σ) α), with z″ from two steps of DDIM (Alg. 2), for a network that is not affine."""
    pairs, rng = learn.StepPairs.of(LINEAR, 4), np.random.default_rng(3)
    alpha = np.append(np.sqrt(LINEAR.alpha_bars), 1.0)
    sigma = np.append(np.sqrt(1 - LINEAR.alpha_bars), 0.0)

    def x0_of(z, t):
        return np.tanh(1.5 * z - 0.02 * t) + 0.1 * z**2

    def teacher(x, t):
        return jnp.tanh(1.5 * x - 0.02 * t[:, None]) + 0.1 * x**2

    z = rng.normal(size=(4, 3))
    found = learn.two_step_target(LINEAR, pairs, jnp.arange(4), parameterization.from_x0(teacher, LINEAR), z)
    for n, (t, m, s) in enumerate(zip(pairs.start, pairs.middle, pairs.end, strict=True)):
        x = x0_of(z[n], t)
        z_m = alpha[m] * x + sigma[m] / sigma[t] * (z[n] - alpha[t] * x)
        x = x0_of(z_m, m)
        z_s = alpha[s] * x + sigma[s] / sigma[m] * (z_m - alpha[m] * x)
        wanted = (z_s - sigma[s] / sigma[t] * z[n]) / (alpha[s] - sigma[s] / sigma[t] * alpha[t])
        np.testing.assert_allclose(found[n], wanted, rtol=1e-12)


def test_steps_are_those_of_the_trailing_grids():
    for total, num_steps in ((1000, 16), (1000, 3), (64, 32), (7, 3)):
        pairs = learn.StepPairs.of(schedules.linear(total), num_steps)
        own, its = dj.timesteps.trailing(total, num_steps), dj.timesteps.trailing(total, 2 * num_steps)
        np.testing.assert_array_equal(pairs.start, own[:-1])
        np.testing.assert_array_equal(pairs.end, own[1:])
        np.testing.assert_array_equal(pairs.middle, its[1::2])
    for wrong in (0, 501, 1.0, True):
        with pytest.raises(ValueError, match=f"num_steps={wrong} must be within 1 … 500: the teacher takes twice"):
            learn.StepPairs.of(schedules.linear(1000), wrong)


def test_uniform_timesteps_give_uniform_steps():
    pairs = learn.StepPairs.of(LINEAR, 8)
    index = np.asarray(pairs.index(jnp.arange(64)))
    np.testing.assert_array_equal(np.bincount(index), np.full(8, 8))
    assert np.all(pairs.start[index] >= np.arange(64))
    assert np.all(pairs.start[index] - np.arange(64) < 8)
    np.testing.assert_array_equal(pairs.index(jnp.array([0.0, 6.5, 7.0, 7.5, 63.0])), [7, 7, 7, 6, 0])


@pytest.mark.parametrize(("schedule", "target"), [(LINEAR, "edm"), (ENDS_AT_0, "v")])
def test_the_affine_student_of_8_steps_in_1_is_exact(schedule, target, noise):
    """Stage by stage, x̂0 = A·x + B at each start, where the loss is 0; the last student makes the whole chain's map."""
    total, rng = schedule.num_timesteps, np.random.default_rng(1)
    teacher = exact(schedule, "x0")
    for num_steps in (4, 2, 1):
        pairs = learn.StepPairs.of(schedule, num_steps)
        table = np.full((total, 2), np.nan)
        for n, t in enumerate(pairs.start):  # an affine function is known from two of its values
            ends = learn.two_step_target(schedule, pairs, jnp.full(2, n), teacher, jnp.array([[0.0], [1.0]]))
            table[t] = float(ends[1, 0] - ends[0, 0]), float(ends[0, 0])
        slope, shift = (jnp.asarray(column) for column in table.T)

        def affine(x, t, slope=slope, shift=shift):
            return slope[t][:, None] * x + shift[t][:, None]

        def student(x, t, affine=affine):
            x_t = unscaled(schedule, x, t, target)
            return process.convert(schedule, x_t, t, affine(x_t, t), given="x0", wanted=target)

        x0, eps = MEAN + STD * rng.normal(size=(16, 1)), rng.normal(size=(16, 1))
        found = learn.progressive(
            schedule, pairs, teacher, student, x0, jnp.asarray(rng.integers(0, total, 16)), eps, target=target
        )
        assert np.max(found) < 1e-20
        teacher = parameterization.from_x0(affine, schedule)
    np.testing.assert_allclose(sampled(schedule, teacher, 1, noise), flow(schedule, 8, noise), rtol=1e-10, atol=1e-11)


def test_the_loss_of_v_has_the_weight_snr_plus_1():
    """And with the weighting "truncated" max(SNR, 1), for each target; the teacher gets no gradient."""
    pairs, rng = learn.StepPairs.of(LINEAR, 4), np.random.default_rng(2)
    x0, eps, t = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), jnp.arange(8) * 8
    start = pairs.start[pairs.index(t)]
    snr = LINEAR.alpha_bars[start] / (1 - LINEAR.alpha_bars[start])
    teacher = exact(LINEAR, "v")
    x_t = process.q_sample(LINEAR, x0, start, eps)
    wanted = learn.two_step_target(LINEAR, pairs, pairs.index(t), teacher, x_t)

    def error(target, weights=None, scale=1.0):
        def student(x, t):
            return process.convert(LINEAR, x, t, 0.1 * x, given="x0", wanted=target)

        def scaled(x, t):
            return jax.tree.map(lambda part: scale * part, teacher(x, t))

        return learn.progressive(LINEAR, pairs, scaled, student, x0, t, eps, target=target, weights=weights)

    x0_error = np.mean((0.1 * x_t - wanted) ** 2, axis=1)
    np.testing.assert_allclose(error("v"), (snr + 1) * x0_error, rtol=1e-10)
    for target in ("eps", "x0", "v"):
        weights = losses.weights(LINEAR, "truncated", target=target)
        np.testing.assert_allclose(error(target, weights), np.maximum(snr, 1) * x0_error, rtol=1e-10)
    assert jax.grad(lambda scale: error("v", scale=scale).sum())(1.0) == 0.0
    with pytest.raises(ValueError, match=r"student returned shape \(8, 6\) for x of shape \(8, 3\)"):
        learn.progressive(LINEAR, pairs, teacher, lambda x, t: jnp.tile(x, 2), x0, t, eps)
