"""Operators and methods by name."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import inverse, samplers, timesteps
from diffjax.inverse import operators, registry

SHAPE = (4, 4, 1)
SCHEDULE = dj.schedules.linear(50, beta_start=1e-3, beta_end=0.2)
GRID = timesteps.trailing(50, 4)


def predict(x, t):
    """The exact network of independent pixels of variance 1/4."""
    alpha_bar = jnp.asarray(SCHEDULE.alpha_bars, x.dtype)[t].reshape(-1, 1, 1, 1)
    return jnp.sqrt(1 - alpha_bar) * x / (0.25 * alpha_bar + 1 - alpha_bar)


def problem(name, noise_std=0.1, **options):
    operator = registry.operator(name, SHAPE, options)
    keys = dj.sample_keys(0, 0, 3)
    y = operator(dj.initial_noise(dj.sample_keys(1, 0, 3), SHAPE) / 2)
    return inverse.Problem(predict, SCHEDULE, GRID, operator, y, keys, noise_std)


def test_operators_are_those_of_the_module():
    x = dj.initial_noise(dj.sample_keys(0, 0, 2), (8, 8, 3))
    made = {
        "downsampling": (operators.downsampling((8, 8, 3), 2, "area"), {"factor": 2, "kind": "area"}),
        "grey": (operators.channels([[1 / 3] * 3], (8, 8, 3)), {}),
    }
    for name, (expected, options) in made.items():
        np.testing.assert_array_equal(registry.operator(name, (8, 8, 3), options)(x), expected(x))
    hidden = (
        np.asarray(registry.operator("box", (8, 8, 3), {"height": 0.25, "width": 0.5})(jnp.ones((1, 8, 8, 3)))) == 0
    )
    assert hidden.sum() == 2 * 4 * 3
    assert hidden[0, 3:5, 2:6].all()
    share = np.asarray(registry.operator("random_mask", (64, 64, 1), {"share": 0.3})(jnp.ones((1, 64, 64, 1)))).mean()
    assert share == pytest.approx(0.7, abs=0.03)
    for name, options in (("gaussian_blur", {"sigma": 0.5}), ("motion_blur", {"length": 3.0})):
        blurred = registry.operator(name, (8, 8, 3), options)(x)
        assert np.var(blurred) < np.var(x)
        np.testing.assert_allclose(np.mean(blurred), np.mean(x), atol=1e-5)


def test_a_method_is_the_function_with_the_sampler_of_its_paper():
    given = problem("downsampling", factor=2)
    wrapped = inverse.mmps(predict, SCHEDULE, given.operator, given.y, noise_std=0.1, iterations=2)
    expected = dj.sample(samplers.ddpm(SCHEDULE, GRID), wrapped, dj.initial_noise(given.keys, SHAPE), given.keys)
    found = inverse.sample_posterior("mmps", given, {"iterations": 2})
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", list(registry.METHODS))
def test_every_method_nears_the_measurement(name):
    """In float32, as commands run; y without noise."""
    given = problem("box", noise_std=1e-2)
    options = {"repaint": {"jump": 2, "times": 2}, "twisted": {"num_particles": 4}}.get(name, {})
    x = inverse.sample_posterior(name, given, options)
    assert x.shape == (3, *SHAPE)
    assert x.dtype == jnp.float32
    far = np.sqrt(np.mean((given.operator(dj.initial_noise(given.keys, SHAPE) / 2) - given.y) ** 2))
    assert np.sqrt(np.mean((given.operator(x) - given.y) ** 2)) < far
    if name in ("mmps", "ddnm", "repaint"):
        np.testing.assert_allclose(given.operator(x), given.y, atol=0.1)


def test_repaint_takes_masks_alone():
    with pytest.raises(ValueError, match="repaint needs an operator that is a mask"):
        inverse.sample_posterior("repaint", problem("downsampling", factor=2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: registry.operator("lens", SHAPE), "'lens' is not one of"),
        (lambda: registry.operator("box", SHAPE, {"height": 0.0}), r"height=0.0 must be within \(0, 1\]"),
        (lambda: registry.operator("random_mask", SHAPE, {"share": 2.0}), r"share=2.0 must be within \[0, 1\]"),
        (lambda: registry.operator("gaussian_blur", SHAPE, {"sigma": 0.0}), r"sigma=0.0 must be within \(0, 1000\]"),
        (lambda: registry.operator("downsampling", SHAPE, {"factor": 3}), "factor"),
        (lambda: inverse.sample_posterior("nope", problem("box")), "'nope' is not one of"),
        (lambda: inverse.sample_posterior("mmps", problem("box"), {"nope": 1}), "nope=1 is not an option here"),
        (lambda: inverse.sample_posterior("mmps", problem("box"), {"iterations": 0}), "iterations=0 must be ≥ 1"),
    ],
)
def test_wrong_calls(call, words):
    with pytest.raises(ValueError, match=words):
        call()
