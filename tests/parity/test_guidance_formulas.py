"""Guidance against PyTorch: Lin et al.'s rescaling as diffusers has it, a classifier's gradient as guided diffusion has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance, schedules

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")

SCHEDULE = schedules.linear()
T = np.array([0, 400, 999])
X, COND, FREE = np.random.default_rng(0).normal(size=(3, 3, 4, 4, 2))
WEIGHTS = np.random.default_rng(1).normal(size=(32, 5))
LABEL = np.array([4, 0, 2])

pytestmark = pytest.mark.usefixtures("x64")


def answer(value, x, t):
    return value


@pytest.mark.parametrize("scale", [1.5, 7.5])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_classifier_free(scale, rescale):
    conditional, free = torch.tensor(COND), torch.tensor(FREE)
    expected = free + scale * (conditional - free)
    every = list(range(1, expected.ndim))
    rescaled = expected * (conditional.std(dim=every, keepdim=True) / expected.std(dim=every, keepdim=True))
    expected = rescale * rescaled + (1 - rescale) * expected

    pairs = jax.tree_util.Partial(answer, guidance.both(COND, FREE))
    found = jax.jit(guidance.classifier_free(pairs, SCHEDULE, scale, rescale=rescale))(X, T)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)


def test_with_classifier():
    x = torch.tensor(X, requires_grad=True)
    logits = torch.sin(x).reshape(3, -1) @ torch.tensor(WEIGHTS)
    chosen = torch.log_softmax(logits, dim=-1)[range(3), LABEL]
    gradient = 2.5 * torch.autograd.grad(chosen.sum(), x)[0]
    alpha_bars = torch.tensor(SCHEDULE.alpha_bars[T]).reshape(3, 1, 1, 1)
    expected = torch.tensor(FREE) - (1 - alpha_bars).sqrt() * gradient

    def log_prob(x, t):
        log_p = jax.nn.log_softmax(jnp.sin(x).reshape(3, -1) @ WEIGHTS)
        return jnp.take_along_axis(log_p, LABEL[:, None], axis=1)[:, 0]

    network = jax.tree_util.Partial(answer, FREE)
    found = jax.jit(guidance.with_classifier(network, SCHEDULE, log_prob, 2.5))(X, T)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)
