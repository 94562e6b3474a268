"""Guidance on a mixture of two Gaussians, where every network and the classifier are closed-form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import guidance, parameterization, process, samplers, schedules, timesteps

SCHEDULE = schedules.linear(100, beta_start=1e-3, beta_end=0.2)
T = np.array([0, 30, 60, 99])
LABEL = np.array([0, 1, 1, 0])
WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-0.8, 0.6]), np.array([0.5, 0.3])
NONE = -1
FREE = np.full(4, NONE)


def draw(seed=0, count=4, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), (count, 3, 2), dtype)


def densities(alpha_bars, x, t):
    """(log w_k q(x_t | k) `[B, 2]`, E[ε | x_t, k] `[B, 2, …]`): x_0 of class k is N(MEANS[k], STDS[k]²) in each element."""
    ab = alpha_bars[t].reshape(-1, 1, *[1] * (x.ndim - 1))
    mean, var = (v.reshape(2, *[1] * (x.ndim - 1)).astype(x.dtype) for v in (MEANS, STDS**2))
    total = ab * var + 1 - ab
    residual = x[:, None] - jnp.sqrt(ab) * mean
    log_q = -0.5 * (residual**2 / total + jnp.log(total))
    return np.log(WEIGHTS).astype(x.dtype) + log_q.sum(range(2, x.ndim + 1)), jnp.sqrt(1 - ab) / total * residual


def mixture(alpha_bars, label, x, t):
    """E[ε | x_t, y], and where the label is NONE E[ε | x_t]."""
    log_q, eps = densities(alpha_bars, x, t)
    share = jnp.where((label == NONE)[:, None], jax.nn.softmax(log_q), jax.nn.one_hot(label, 2))
    return jnp.einsum("bk,bk...->b...", share, eps)


def log_posterior(alpha_bars, label, x, t):
    log_q, _ = densities(alpha_bars, x, t)
    return jnp.take_along_axis(jax.nn.log_softmax(log_q), label[:, None], axis=1)[:, 0]


def network(label):
    return jax.tree_util.Partial(mixture, jnp.asarray(SCHEDULE.alpha_bars), jnp.asarray(label))


def telling(target, label):
    """A network of another target, with two channels of variance after it that tell the label."""

    def predict(x, t):
        value = process.convert(SCHEDULE, x, t, network(label)(x, t), given="eps", wanted=target)
        return jnp.concatenate([value, 0 * value + label[:, None, None]], axis=-1)

    return predict


@pytest.mark.usefixtures("x64")
def test_from_the_unconditional_network_to_the_conditional_one_and_beyond():
    x = draw()
    c, u = network(LABEL)(x, T), network(FREE)(x, T)
    assert np.max(np.abs(c - u)) > 0.1
    for scale, expected in ((0.0, u), (1, c)):
        found = guidance.classifier_free(network(LABEL), SCHEDULE, scale, unconditional=network(FREE))(x, T)
        np.testing.assert_array_equal(found, expected)
    found = guidance.classifier_free(network(LABEL), SCHEDULE, 3.5, unconditional=network(FREE))(x, T)
    np.testing.assert_allclose(found, u + 3.5 * (c - u), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_one_network_answers_for_both_in_one_call():
    x, calls = draw(), []
    pairs = network(guidance.both(LABEL, NONE))

    def counted(x, t):
        calls.append(x.shape)
        return pairs(x, t)

    two = guidance.classifier_free(network(LABEL), SCHEDULE, 2.5, unconditional=network(FREE))(x, T)
    np.testing.assert_allclose(guidance.classifier_free(counted, SCHEDULE, 2.5)(x, T), two, rtol=1e-14)
    assert calls == [(8, 3, 2)]


def test_both_stand_side_by_side():
    assert guidance.both(np.array([3, 5], np.int32), NONE).tolist() == [3, NONE, 5, NONE]
    assert guidance.both(np.ones((1, 2)), 0.0).tolist() == [[1, 1], [0, 0]]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_whatever_the_network_predicts(target):
    """Guided inside `from_target` or outside: the same belief, and the variance of the conditional network."""
    x = draw()
    conditional, free, pairs = (telling(target, label) for label in (LABEL, FREE, guidance.both(LABEL, NONE)))

    def converted(predict):
        return parameterization.from_target(predict, SCHEDULE, target, variance="learned_range")

    inside = converted(guidance.classifier_free(pairs, SCHEDULE, 2.5))(x, T)
    outside = guidance.classifier_free(converted(conditional), SCHEDULE, 2.5, unconditional=converted(free))(x, T)
    eps = guidance.classifier_free(network(LABEL), SCHEDULE, 2.5, unconditional=network(FREE))(x, T)
    for found in (inside, outside):
        np.testing.assert_allclose(found.eps, eps, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.x0, process.predict_x0(SCHEDULE, x, T, eps), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.log_var_frac, np.ones((4, 3, 2)) * (LABEL.reshape(4, 1, 1) + 1) / 2)


@pytest.mark.usefixtures("x64")
def test_an_interval_of_noise_levels():
    x = draw()
    levels = np.sqrt((1 - SCHEDULE.alpha_bars) / SCHEDULE.alpha_bars)[T]
    assert levels[0] < 0.1 < levels[1] < 3 < levels[2]

    def at(*interval):
        return guidance.classifier_free(network(guidance.both(LABEL, NONE)), SCHEDULE, 4.0, interval=interval)(x, T)

    everywhere, conditional = at(0.0, np.inf), network(LABEL)(x, T)
    limited = at(0.1, 3.0)
    np.testing.assert_array_equal(limited[1], everywhere[1])
    assert np.max(np.abs(limited[1] - conditional[1])) > 0.01
    np.testing.assert_array_equal(limited[np.array([0, 2, 3])], conditional[np.array([0, 2, 3])])


@pytest.mark.usefixtures("x64")
def test_rescaling_gives_back_the_conditional_deviation():
    x = draw()
    pairs = network(guidance.both(LABEL, NONE))
    c = network(LABEL)(x, T)
    guided, half, whole = (guidance.classifier_free(pairs, SCHEDULE, 4.0, rescale=phi)(x, T) for phi in (0, 0.5, 1))
    np.testing.assert_allclose(np.std(whole, (1, 2)), np.std(c, (1, 2)), rtol=1e-12)
    np.testing.assert_allclose(half, (guided + whole) / 2, rtol=1e-12)
    # A network that gives a constant has no deviation to keep.
    flat = guidance.classifier_free(lambda x, t: jnp.zeros_like(x), SCHEDULE, 4.0, rescale=1.0)(x, T)
    np.testing.assert_array_equal(flat, np.zeros(x.shape))


@pytest.mark.usefixtures("x64")
def test_rescaling_a_prediction_is_rescaling_x0():
    x = draw()
    conditional = parameterization.to_x0(network(LABEL), SCHEDULE)
    found = guidance.classifier_free(
        parameterization.from_x0(conditional, SCHEDULE), SCHEDULE, 4.0, rescale=1.0,
        unconditional=parameterization.from_x0(parameterization.to_x0(network(FREE), SCHEDULE), SCHEDULE),
    )(x, T)  # fmt: skip
    np.testing.assert_allclose(np.std(found.x0, (1, 2)), np.std(conditional(x, T), (1, 2)), rtol=1e-10)
    np.testing.assert_allclose(process.q_sample(SCHEDULE, found.x0, T, found.eps), x, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_true_classifier_makes_the_unconditional_network_conditional(wrapped):
    x = draw()
    free = network(FREE)
    if wrapped:
        free = parameterization.from_x0(parameterization.to_x0(free, SCHEDULE), SCHEDULE)
    classifier = jax.tree_util.Partial(log_posterior, jnp.asarray(SCHEDULE.alpha_bars), LABEL)
    found = guidance.with_classifier(free, SCHEDULE, classifier, 1.0)(x, T)
    expected = network(LABEL)(x, T)
    eps = found.eps if wrapped else found
    np.testing.assert_allclose(eps, expected, rtol=1e-10, atol=1e-12)
    if wrapped:
        np.testing.assert_allclose(found.x0, process.predict_x0(SCHEDULE, x, T, expected), rtol=1e-9, atol=1e-11)
    # Both kinds of guidance are one where the classifier is the networks' own.
    twice = guidance.with_classifier(free, SCHEDULE, classifier, 2.0)(x, T)
    implicit = guidance.classifier_free(network(guidance.both(LABEL, NONE)), SCHEDULE, 2.0)(x, T)
    np.testing.assert_allclose(parameterization.to_eps(lambda x, t: twice)(x, T), implicit, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_samples_are_of_their_class():
    """A whole run with the exact networks ends where the class is, and nearer to its mean with guidance."""
    label = np.arange(200) % 2
    keys = dj.sample_keys(0, 0, 200)
    x = dj.initial_noise(keys, (4,), jnp.float64)
    steps = samplers.ddim(SCHEDULE, timesteps.full(100))
    draws = {}
    for scale in (1.0, 3.0):
        predict = guidance.classifier_free(network(guidance.both(label, NONE)), SCHEDULE, scale)
        draws[scale] = np.asarray(dj.sample(steps, predict, x))
    for k in (0, 1):
        assert np.mean(draws[1.0][label == k]) == pytest.approx(MEANS[k], abs=0.06)
        share = [log_posterior(np.array([1 - 1e-9]), label, draw, np.zeros(200, int)) for draw in draws.values()]
        assert np.mean(share[1][label == k]) > np.mean(share[0][label == k])


def test_other_numbers_compile_nothing(count_compilations):
    x = draw(dtype=jnp.float32)
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5))
    pairs, classifier = jnp.asarray(guidance.both(LABEL, NONE)), jnp.asarray(LABEL)
    alpha_bars = jnp.asarray(SCHEDULE.alpha_bars, jnp.float32)

    def run(scale, **options):
        net = jax.tree_util.Partial(mixture, alpha_bars, pairs)
        return dj.sample(steps, guidance.classifier_free(net, SCHEDULE, scale, **options), x).block_until_ready()

    def run_with_classifier(scale):
        net = jax.tree_util.Partial(mixture, alpha_bars, classifier)
        p = jax.tree_util.Partial(log_posterior, alpha_bars, classifier)
        return dj.sample(steps, guidance.with_classifier(net, SCHEDULE, p, scale), x).block_until_ready()

    first = run(1.0), run_with_classifier(1.0)
    count_compilations()
    others = run(3.0), run(2, interval=(0.3, 3)), run(2.0, rescale=0.5), run_with_classifier(2)
    assert count_compilations() == 0
    assert all(np.all(np.isfinite(other)) and not np.array_equal(other, first[0]) for other in others)


@pytest.mark.usefixtures("x64")
def test_a_sweep_over_scales_is_one_vmap():
    x = draw()
    net = network(guidance.both(LABEL, NONE))
    found = jax.vmap(lambda scale: guidance.classifier_free(net, SCHEDULE, scale)(x, T))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(found[1], network(LABEL)(x, T))
    np.testing.assert_allclose(found[2], 2 * found[1] - found[0], rtol=1e-12)


X = jnp.zeros((3, 4, 2))


def eps_like(x, t):
    return x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: guidance.classifier_free("net", SCHEDULE, 1.0), "predict must be callable.*it is a str"),
        (lambda: guidance.classifier_free(eps_like, SCHEDULE, 1.0, interval=(3.0, 1.0)), r"interval=\(3.0, 1.0\) must be two"),
        (lambda: guidance.classifier_free(eps_like, SCHEDULE, 1.0, interval=(-1.0, 1.0)), "0 ≤ low < high"),
        (lambda: guidance.classifier_free(eps_like, SCHEDULE, 1.0, rescale=1.5), r"rescale=1.5 must be within \[0, 1\]"),
        (lambda: guidance.classifier_free(lambda x, t: x[:3], SCHEDULE, 1.0)(X, 5), r"must return 2·3 rows; it returned \[\(3, 4, 2\)\]"),
        (lambda: guidance.classifier_free(lambda x, t: x[..., :1], SCHEDULE, 1.0)(X, 5), r"shape \(3, 4, 1\) for x of shape"),
        (lambda: guidance.classifier_free(eps_like, SCHEDULE, 1.0, unconditional=parameterization.from_x0(eps_like, SCHEDULE))(X, 5), "both return an array"),
        (lambda: guidance.classifier_free(eps_like, SCHEDULE, float("nan")), "scale=nan must be finite"),
        (lambda: guidance.classifier_free(eps_like, SCHEDULE, 1.0, interval=(float("nan"), 1.0)), "0 ≤ low < high"),
        (lambda: guidance.with_classifier(eps_like, SCHEDULE, eps_like, float("inf")), "scale=inf must be finite"),
        (lambda: guidance.with_classifier(eps_like, SCHEDULE, None, 1.0), "log_prob must be callable.*NoneType"),
        (lambda: guidance.with_classifier(eps_like, SCHEDULE, lambda x, t: x[..., 0], 1.0)(X, 5), r"shape \(3, 4\) for 3 rows"),
    ],
)  # fmt: skip
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
