import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.training import optimizers

NAN, INF = float("nan"), float("inf")
RATE = optimizers.learning_rate(1.0, warmup_steps=0, lr_schedule="constant", num_steps=5)


def test_warm_up_then_cosine_to_zero():
    rate = optimizers.learning_rate(2.0, warmup_steps=10, lr_schedule="cosine", num_steps=110)
    assert [float(rate(n)) for n in (0, 5, 10, 60, 110)] == pytest.approx([0, 1, 2, 1, 0], abs=1e-6)


def test_constant():
    rate = optimizers.learning_rate(2.0, warmup_steps=0, lr_schedule="constant", num_steps=3)
    assert [float(rate(n)) for n in (0, 100)] == [2.0, 2.0]


def test_gradient_is_clipped_by_its_global_norm():
    opt = optimizers.optimizer("adam", RATE, grad_clip_norm=1.0)
    _, (_, (adam, *_), _) = opt.update(
        {"a": jnp.array([30.0]), "b": jnp.array([40.0])}, opt.init({"a": jnp.zeros(1), "b": jnp.zeros(1)})
    )
    np.testing.assert_allclose(adam.mu.small, [0.06, 0.08], rtol=1e-5)  # 0.1 of what came through


@pytest.mark.parametrize(
    ("name", "options"), [("adam", {}), ("adamw", {}), ("adamw", {"weight_decay": 0.1, "b1": 0.8})]
)
def test_updates_are_optax_s_at_that_rate(name, options):
    rate = optimizers.learning_rate(0.3, warmup_steps=2, lr_schedule="cosine", num_steps=9)
    ours = optimizers.optimizer(name, rate, grad_clip_norm=None, **options)
    theirs = getattr(optax, name)(lambda count: 0.3 * rate.share(count), **options)
    params = [{"a": jnp.array([1.0, -2.0])}] * 2
    states = [optimizer.init(params[0]) for optimizer in (ours, theirs)]
    for n in range(8):
        gradients = {"a": jnp.array([0.5 + n, -1.0])}
        for k, optimizer in enumerate((ours, theirs)):
            updates, states[k] = optimizer.update(gradients, states[k], params[k])
            params[k] = optax.apply_updates(params[k], updates)
        np.testing.assert_allclose(params[0]["a"], params[1]["a"], rtol=1e-6, atol=1e-6)
    assert abs(params[0]["a"][0] - 1.0) > 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: optimizers.learning_rate(1.0, warmup_steps=0, lr_schedule="step", num_steps=5),
            "lr_schedule='step' is not one of",
        ),
        (lambda: optimizers.learning_rate(0.0, warmup_steps=0, lr_schedule="cosine", num_steps=5), "learning_rate=0.0"),
        (lambda: optimizers.learning_rate(INF, warmup_steps=0, lr_schedule="cosine", num_steps=5), "learning_rate=inf"),
        (lambda: optimizers.learning_rate(NAN, warmup_steps=0, lr_schedule="cosine", num_steps=5), "learning_rate=nan"),
        (lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=NAN), "grad_clip_norm=nan"),
        (lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=None, b1=1.0), r"b1=1.0 must be within \[0, 1\)"),
        (lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=None, b2=NAN), "b2=nan"),
        (lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=None, eps=0.0), "eps=0.0"),
        (lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=None, eps=1e12), r"eps=.* must be within \(0, 1\]"),
        (
            lambda: optimizers.optimizer("adamw", RATE, grad_clip_norm=None, weight_decay=1e12),
            r"must be within \[0, 10",
        ),
        (lambda: optimizers.optimizer("adamw", RATE, grad_clip_norm=None, weight_decay=-1.0), "weight_decay=-1.0"),
        (
            lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=None, weight_decay=0.1),
            "weight_decay=0.1 is not an option",
        ),
        (
            lambda: optimizers.learning_rate(1.0, warmup_steps=5, lr_schedule="cosine", num_steps=5),
            "warmup_steps=5.*0 … 4",
        ),
        (
            lambda: optimizers.learning_rate(1.0, warmup_steps=-1, lr_schedule="constant", num_steps=5),
            "warmup_steps=-1",
        ),
        (lambda: optimizers.optimizer("sgdd", RATE, grad_clip_norm=None), "'sgdd' is not one of 'adam', 'adamw'"),
        (lambda: optimizers.optimizer("adam", RATE, grad_clip_norm=0.0), "grad_clip_norm=0.0"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
