"""Images of any size, beside a network in NumPy whose image lies on a larger canvas where nothing else is.

There every convolution sees zeros past the image, every norm and attention its pixels alone, and sizes are even.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import UNet

SMALL = {"base_channels": 4, "channel_mults": (1, 2, 2), "num_res_blocks": 1, "num_groups": 2, "dropout": 0.0}
FAMILY = {
    "ddpm": {"attention_levels": (1,)},
    "improved": {"attention_levels": (), "downsample_padding": (1, 1), "middle_attention": False},
    "guided": {"attention_levels": (), "use_scale_shift_norm": True, "resblock_updown": True},
}
family = pytest.mark.parametrize("name", FAMILY)
pytestmark = pytest.mark.usefixtures("x64")


def member(name):
    """A network in float64, and parameters of which none is zero."""
    model = UNet(**SMALL, **FAMILY[name], dtype=jnp.float64)
    x = jnp.zeros((1, 8, 8, 2))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, jnp.zeros(1), image=x[..., :1]))["params"]
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))

    return model, jax.tree.map(draw, shapes)


def inputs(size):
    rng = np.random.default_rng(1)
    return rng.normal(size=(1, *size, 2)), np.array([37.0]), rng.normal(size=(1, *size, 1))


@partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, image):
    return model.apply({"params": params}, x, t, image=image)


def swish(x):
    return x / (1 + np.exp(-x))


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


class OnCanvas:
    """The network of `model`, one image at a time: `[H, W, C]` float64 → the same, through a canvas `[H', W', C]`."""

    def __init__(self, model, params, canvas):
        self.model, self.params, self.canvas = model, params, canvas

    def __call__(self, x, t, image):
        model, p = self.model, self.params
        half = model.base_channels // 2
        angles = t * np.exp(-np.log(1e4) / (half - 1) * np.arange(half))
        waves = np.concatenate([np.sin(angles), np.cos(angles)])
        self.emb = dense(swish(dense(waves, p["time_1"])), p["time_2"])

        self.sizes = [x.shape[:2]]
        for _ in model.channel_mults[1:]:
            self.sizes.append(tuple((n + 1) // 2 for n in self.sizes[-1]))
        canvas = np.zeros((*self.canvas, x.shape[-1] + image.shape[-1]))
        canvas[: x.shape[0], : x.shape[1]] = np.concatenate([x, image], axis=-1)

        last = len(model.channel_mults) - 1
        h = self.conv(canvas, 0, p["conv_in"])
        skips = [h]
        for level in range(last + 1):
            h = self.block(h, level, f"down_{level}_0")
            skips.append(h)
            if level < last:
                h = self.halved(h, level, p[f"down_{level}_downsample"])
                skips.append(h)
        h = self.res_block(h, last, p["middle_0"])
        if model.middle_attention:
            h = self.attention(h, last, p["middle_attention"])
        h = self.res_block(h, last, p["middle_1"])
        for level in reversed(range(last + 1)):
            for i in range(2):
                h = self.block(np.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level:
                h = self.doubled(h, level, p[f"up_{level}_upsample"])
        h = self.conv(swish(self.norm(h, 0, p["norm_out"])), 0, p["conv_out"])
        return h[: x.shape[0], : x.shape[1]]

    def masked(self, h, level):
        height, width = self.sizes[level]
        kept = np.zeros_like(h)
        kept[:height, :width] = h[:height, :width]
        return kept

    def conv(self, h, level, p, stride=1, before=1):
        """To `level`."""
        (height, width, _), taps = h.shape, p["kernel"]
        padded = np.pad(h, [(before, 3), (before, 3), (0, 0)])
        found = sum(
            padded[a : a + height : stride, b : b + width : stride] @ taps[a, b] for a in range(3) for b in range(3)
        )
        return self.masked(found + p["bias"], level)

    def norm(self, h, level, p):
        height, width = self.sizes[level]
        inside = h[:height, :width].reshape(height, width, self.model.num_groups, -1)
        centred = inside - inside.mean((0, 1, 3), keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean((0, 1, 3), keepdims=True) + self.model.norm_eps)
        found = np.zeros_like(h)
        found[:height, :width] = scaled.reshape(height, width, -1) * p["norm"]["scale"] + p["norm"]["bias"]
        return found

    def mean(self, h, level):
        """The mean of those of 2×2 pixels that are there; to `level`."""

        def total(values):
            return sum(values[a::2, b::2] for a in range(2) for b in range(2))

        there = self.masked(np.ones_like(h[..., :1]), level - 1)
        return total(h) / np.maximum(total(there), 1)

    def repeated(self, h, level):
        return self.masked(h.repeat(2, axis=0).repeat(2, axis=1), level)

    def halved(self, h, level, p):
        if self.model.resblock_updown:
            return self.res_block(h, level, p, self.mean, level + 1)
        return self.conv(h, level + 1, p["conv"], stride=2, before=self.model.downsample_padding[0])

    def doubled(self, h, level, p):
        if self.model.resblock_updown:
            return self.res_block(h, level, p, self.repeated, level - 1)
        return self.conv(self.repeated(h, level - 1), level - 1, p["conv"])

    def res_block(self, x, level, p, resample=None, to=None):
        h = swish(self.norm(x, level, p["norm1"]))
        if resample:
            h, x, level = resample(h, to), resample(x, to), to
        h, emb = self.conv(h, level, p["conv1"]), dense(swish(self.emb), p["emb"])
        if self.model.use_scale_shift_norm:
            scale, shift = np.split(emb, 2)
            h = self.norm(h, level, p["norm2"]) * (1 + scale) + shift
        else:
            h = self.norm(self.masked(h + emb, level), level, p["norm2"])
        h = self.conv(self.masked(swish(h), level), level, p["conv2"])
        return h + (self.masked(dense(x, p["shortcut"]), level) if "shortcut" in p else x)

    def attention(self, x, level, p):
        height, width = self.sizes[level]
        h = self.norm(x, level, p["norm"])[:height, :width].reshape(height * width, -1)
        q, k, v = (dense(h, p[name]) for name in "qkv")
        weights = np.exp(q @ k.T / np.sqrt(q.shape[-1]))
        found = dense(weights / weights.sum(axis=1, keepdims=True) @ v, p["out"]).reshape(height, width, -1)
        x = x.copy()
        x[:height, :width] += found
        return x

    def block(self, h, level, name):
        h = self.res_block(h, level, self.params[name])
        if level in self.model.attention_levels:
            h = self.attention(h, level, self.params[f"{name}_attention"])
        return h


@family
@pytest.mark.parametrize("size", [(7, 10), (5, 13), (8, 12)])
def test_nothing_is_around_an_image(name, size):
    """Whatever the canvas, and so whatever padding it would take, the answer is that for the image alone."""
    model, params = member(name)
    x, t, image = inputs(size)
    answer = np.asarray(apply(model, params, x, t, image))
    assert answer.shape == x.shape
    for canvas in ((8, 16), (20, 24)):
        expected = OnCanvas(model, params, canvas)(x[0], t[0], image[0])
        np.testing.assert_allclose(answer[0], expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_a_mirrored_margin_would_tell():
    model, params = member("ddpm")
    x, t, image = inputs((7, 10))
    wide = [np.pad(part, [(0, 0), (0, 1), (0, 2), (0, 0)], mode="symmetric") for part in (x, image)]
    answer, of_wide = apply(model, params, x, t, image), apply(model, params, wide[0], t, wide[1])
    assert np.abs(answer - of_wide[:, :7, :10]).max() > 0.05 * np.abs(answer).max()


@pytest.mark.slow
def test_gradients_at_odd_sizes():
    """Along a direction, the gradient's slope is that of the loss."""
    model, params = member("ddpm")
    x, t, image = inputs((5, 7))
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)

    @jax.jit
    def loss_and_slope(params):
        value, gradient = jax.value_and_grad(lambda p: jnp.sum(model.apply({"params": p}, x, t, image=image) ** 2))(
            params
        )
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
        return value, sum(jax.tree.leaves(products))

    step = 1e-6

    def moved(length):
        return jax.tree.map(lambda p, d: p + length * d, params, direction)

    ahead, behind = moved(step), moved(-step)
    slope = (loss_and_slope(ahead)[0] - loss_and_slope(behind)[0]) / (2 * step)
    np.testing.assert_allclose(loss_and_slope(params)[1], slope, rtol=1e-6)


@family
def test_the_smallest_image_is_a_pixel(name):
    model, params = member(name)
    assert jax.eval_shape(partial(apply, model), params, *inputs((1, 1))).shape == (1, 1, 1, 2)
