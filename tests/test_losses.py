from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import likelihood, losses, parameterization, process, schedules
from diffjax.noise import sample_noise

SCHEDULE = schedules.linear(10)
T = np.arange(10)
SNR = SCHEDULE.alpha_bars / (1 - SCHEDULE.alpha_bars)


def draw(shape=(10, 3, 3, 2)):
    return jax.random.normal(jax.random.key(0), (2, *shape))


@pytest.mark.parametrize(("norm", "expected"), [("l2", 0.25), ("l1", 0.5), ("huber", 0.2 * (0.5 - 0.1))])
def test_zero_for_the_oracle_and_known_for_a_constant_error(norm, expected):
    x0, noise = draw()
    for target, truth in (("eps", noise), ("x0", x0), ("v", process.predict_v(SCHEDULE, x0, T, noise))):
        loss = partial(losses.denoising, SCHEDULE, x0=x0, t=T, noise=noise, target=target, norm=norm, delta=0.2)
        assert jnp.all(loss(lambda x, t, truth=truth: truth) == 0)
        np.testing.assert_allclose(loss(lambda x, t, truth=truth: truth - 0.5), np.full(10, expected), rtol=1e-5)


def test_huber_is_half_the_square_within_delta():
    x0, noise = draw()
    loss = partial(losses.denoising, SCHEDULE, lambda x, t: noise + 0.3, x0, T, noise)
    np.testing.assert_allclose(loss(norm="huber", delta=0.4), 0.5 * loss(), rtol=1e-6)


def test_network_sees_x_t_and_t():
    x0, noise = jnp.full((2, 1), 2.0), jnp.full((2, 1), 3.0)
    t = np.array([1, 8])
    seen = []
    losses.denoising(SCHEDULE, lambda x, t: seen.append((x, t)) or x, x0, t, noise)
    ab = SCHEDULE.alpha_bars[t][:, None]
    np.testing.assert_allclose(seen[0][0], np.sqrt(ab) * 2 + np.sqrt(1 - ab) * 3, rtol=1e-6)
    np.testing.assert_array_equal(seen[0][1], t)


@pytest.mark.parametrize(
    ("weighting", "gamma", "on_eps", "on_x0", "on_v"),
    [
        ("snr", None, np.ones(10), SNR, SNR / (SNR + 1)),
        ("min_snr", None, np.minimum(SNR, 5) / SNR, np.minimum(SNR, 5), np.minimum(SNR, 5) / (SNR + 1)),
        ("min_snr", 1.5, np.minimum(SNR, 1.5) / SNR, np.minimum(SNR, 1.5), np.minimum(SNR, 1.5) / (SNR + 1)),
        ("p2", None, 1 / (1 + SNR), SNR / (1 + SNR), SNR / (1 + SNR) ** 2),
        ("p2", 0.5, (1 + SNR) ** -0.5, SNR * (1 + SNR) ** -0.5, SNR * (1 + SNR) ** -1.5),
        ("truncated", None, np.maximum(SNR, 1) / SNR, np.maximum(SNR, 1), np.maximum(SNR, 1) / (SNR + 1)),
        ("simple", None, np.ones(10), np.ones(10), np.ones(10)),
    ],
)  # fmt: skip
def test_weights_are_the_papers(weighting, gamma, on_eps, on_x0, on_v):
    for target, expected in (("eps", on_eps), ("x0", on_x0), ("v", on_v)):
        options = {} if gamma is None else {"weighting_gamma": gamma}
        weights = losses.weights(SCHEDULE, weighting, target=target, **options)
        assert weights.dtype == np.float64
        np.testing.assert_allclose(weights, expected, rtol=1e-12)


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "p2", "truncated", "edm"])
def test_a_weighting_is_the_same_loss_whatever_the_network_predicts(x64, weighting):
    x0, noise = draw()
    x_t = process.q_sample(SCHEDULE, x0, T, noise)
    eps = noise + 0.1 * jnp.cos(x_t)  # one prediction in all parameterizations
    values = []
    for target in losses.TARGETS:
        answer = process.convert(SCHEDULE, x_t, T, eps, given="eps", wanted=target)
        weights = losses.weights(SCHEDULE, weighting, target=target)
        predict = lambda x, t, answer=answer: answer  # noqa: E731
        values.append(losses.denoising(SCHEDULE, predict, x0, T, noise, target=target, weights=weights))
    np.testing.assert_allclose(values[1:], [values[0]] * 4, rtol=1e-9)


def test_weights_where_no_signal_is_left():
    schedule = schedules.zero_terminal_snr(schedules.linear(10))
    assert losses.weights(schedule, "truncated", target="v")[-1] == 1
    assert losses.weights(schedule, "min_snr", target="x0")[-1] == 0
    for target in losses.TARGETS:
        np.testing.assert_array_equal(losses.weights(schedule, "simple", target=target), np.ones(10))
    with pytest.raises(ValueError, match="weighting='truncated' for target='eps' must be finite .* not at t=9"):
        losses.weights(schedule, "truncated")


def hybrid(net, x0, noise, t=T, target="eps", **options):
    return losses.denoising(SCHEDULE, net, x0, t, noise, target=target, vlb_weight=0.01, **options)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_hybrid_is_simple_plus_the_bound_of_the_sampled_distribution(x64, target):
    x0 = jax.random.randint(jax.random.key(1), (10, 3, 3, 2), 0, 256) / 127.5 - 1
    _, noise = draw()

    def net(x, t):
        return jnp.concatenate([jnp.sin(x), jnp.cos(x)], axis=-1)

    x_t = process.q_sample(SCHEDULE, x0, T, noise)
    prediction = parameterization.split_variance(net, SCHEDULE, given=target)(x_t, T)
    mean, _, low = process.q_posterior(SCHEDULE, prediction.x0, x_t, T)
    high = np.log(SCHEDULE.betas).reshape(-1, 1, 1, 1)
    log_var = prediction.log_var_frac * high + (1 - prediction.log_var_frac) * low
    bound = likelihood.bound_term(SCHEDULE, x0, x_t, T, mean, log_var)
    simple = losses.denoising(SCHEDULE, lambda x, t: jnp.sin(x), x0, T, noise, target=target)
    np.testing.assert_allclose(hybrid(net, x0, noise, target=target), simple + 0.01 * 10 * bound, rtol=1e-9)


def test_hybrid_trains_the_variance_through_the_bound_and_the_mean_without_it():
    x0, noise = draw((10, 2))
    x0 = jnp.clip(x0, -1, 1)

    def total(loss, a, b):
        return jnp.sum(loss(lambda x, t: jnp.concatenate([a * x, jnp.full_like(x, b)], axis=-1)))

    mean_gradient, variance_gradient = jax.grad(total, (1, 2))(lambda net: hybrid(net, x0, noise), 0.7, 0.3)
    alone = jax.grad(lambda a: jnp.sum(losses.denoising(SCHEDULE, lambda x, t: a * x, x0, T, noise)))(0.7)
    assert float(mean_gradient) == pytest.approx(float(alone), rel=1e-6)
    assert abs(float(variance_gradient)) > 0.01


def test_hybrid_prefers_the_true_variance(x64):
    # The mean of the bound over x_t, for a network that knows x0: least where the model's variance is the posterior's.
    x0, noise = draw((2000, 1))
    x0, t = jnp.clip(x0, -1, 1), np.full(2000, 5)

    @jax.jit
    def bound(v):
        net = lambda x, t: jnp.concatenate([noise, jnp.full_like(x, v)], axis=-1)  # noqa: E731
        return jnp.mean(hybrid(net, x0, noise, t))

    assert float(jax.grad(bound)(-1.0)) == pytest.approx(0, abs=1e-12)
    assert bound(-0.9) > bound(-1.0) < bound(-1.1)


def test_offset_noise_is_one_value_for_each_example_and_channel():
    keys = jax.vmap(jax.random.key)(np.arange(4000))
    offset = losses.offset_noise(keys, (5, 6, 3), 0.1)
    assert offset.shape == (4000, 1, 1, 3)
    assert np.std(offset) == pytest.approx(0.1, rel=0.03)
    assert abs(np.corrcoef(offset[:, 0, 0, 0], offset[:, 0, 0, 1])[0, 1]) < 0.06
    np.testing.assert_array_equal(offset[7:9], losses.offset_noise(keys[7:9], (5, 6, 3), 0.1))


X0 = jnp.zeros((1, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x, X0, np.zeros(1, int), X0, norm="l3"), "norm='l3' is not one of 'l2', 'l1', 'huber'"),
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x, X0, np.zeros(1, int), X0, target="score"), "target='score' is not one of 'eps'"),
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x, X0, np.zeros(1, int), X0, delta=0.0), "delta=0.0 must be > 0"),
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x, X0, np.zeros(1, int), X0, vlb_weight=-0.1), "vlb_weight=-0.1"),
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x, X0, np.zeros(1, int), X0, vlb_weight=0.1), r"shape \(1, 2\) .* must be \(1, 4\)"),
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x[:, :1], X0, np.zeros(1, int), X0), r"shape \(1, 1\) .* must be \(1, 2\)"),
        (lambda: losses.weights(SCHEDULE, "min_snr", weighting_gamma=float("nan")), "weighting_gamma=nan"),
        (lambda: losses.denoising(SCHEDULE, lambda x, t: x, X0, np.zeros(1, int), X0, vlb_weight=float("nan")), "vlb_weight=nan"),
        (lambda: losses.weights(SCHEDULE, "snrr"), "'snrr' is not one of 'simple', 'snr', 'min_snr', 'p2', 'truncated'"),
        (lambda: losses.weights(SCHEDULE, "snr", weighting_gamma=5.0), "weighting_gamma=5.0 is not an option here"),
        (lambda: losses.weights(SCHEDULE, "p2", weighting_gamma=0.0), "weighting_gamma=0.0 must be > 0"),
        (lambda: losses.weights(SCHEDULE, "p2", weighting_gamma=1e12), "weighting_gamma=1000000000000.0 must be > 0 and ≤ 100"),
        (lambda: losses.weights(SCHEDULE, "min_snr", weighting_gamma=1e12), r"must be > 0 and ≤ 1e\+06"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_loss_by_timestep_is_known_for_a_known_network():
    x0, keys = draw((4, 3, 3, 2))[0], jax.random.split(jax.random.key(1), 4)

    def loss(params, batch, t, keys, _):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3, 3, 2)))(keys)
        return losses.denoising(SCHEDULE, lambda x, t: params * x, batch["image"], t, noise)

    t = [0, 3, 9]
    values = losses.by_timestep(loss, jnp.float32(0.5), {"image": x0}, t, keys)
    assert values.shape == (3, 4)
    for k, level in enumerate(t):
        noise = np.asarray(sample_noise(keys, level, (3, 3, 2), jnp.float32))  # of fold_in(key_n, t)
        ab = SCHEDULE.alpha_bars[level]
        x_t = np.sqrt(ab) * np.asarray(x0) + np.sqrt(1 - ab) * noise
        np.testing.assert_allclose(values[k], np.mean((0.5 * x_t - noise) ** 2, axis=(1, 2, 3)), rtol=1e-5)
    # Neither the batch nor the other timesteps matter.
    few = losses.by_timestep(loss, jnp.float32(0.5), {"image": x0[1:3]}, [9], keys[1:3])
    np.testing.assert_allclose(few[0], values[2, 1:3], rtol=1e-5)


@pytest.mark.parametrize("timesteps", [5, [0.5], [[1]]])
def test_loss_by_timestep_with_bad_timesteps(timesteps):
    with pytest.raises(ValueError, match=r"timesteps must be int \[K\]"):
        losses.by_timestep(lambda *_: None, {}, {"image": jnp.zeros(2)}, timesteps, jax.random.key(0))
