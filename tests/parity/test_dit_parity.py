"""DiT beside diffusers' `DiTTransformer2DModel` at random weights, in float64, with weights and configs both ways."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from diffusers.models.embeddings import get_2d_sincos_pos_embed  # noqa: E402

from diffjax.errors import UserError  # noqa: E402
from diffjax.interop import diffusers_dit  # noqa: E402
from diffjax.models import DiT, init_params, predictor  # noqa: E402
from torch_reference.unets.parts import Sinusoids  # noqa: E402

CONFIGS = {
    "plain": {},
    "learned variance": {"out_channels": 6},
    "patch 1, deeper": {"patch_size": 1, "num_layers": 3, "sample_size": 4},
    "patch 4, without bias": {"patch_size": 4, "attention_bias": False, "out_channels": 6, "in_channels": 3},
    "one head, one norm": {"num_attention_heads": 1, "attention_head_dim": 12, "norm_eps": 1e-6},
}
cases = pytest.mark.parametrize("name", CONFIGS)
T, LABELS = (0.0, 3.0, 500.0, 999.0), (1, 4, 0, -1)


def built(**config):
    """diffusers' network with random weights and, as in a trained one, the same embeddings in every block."""
    settings = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 3,
        "num_layers": 2,
        "sample_size": 8,
        "num_embeds_ada_norm": 5,
    }
    network = diffusers.DiTTransformer2DModel(**settings | config).eval().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for block in network.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(network.transformer_blocks[0].norm1.emb.state_dict())
    return network


def in_float64(network):
    """Replaces the two tables that diffusers computes in float32."""
    position, grid = network.pos_embed, network.config.sample_size // network.config.patch_size
    table = get_2d_sincos_pos_embed(network.inner_dim, grid, base_size=grid, output_type="pt")
    assert table.dtype == torch.float64
    torch.testing.assert_close(table[None], position.pos_embed, rtol=0, atol=1e-6)
    # Its forward pass rounds the table once more where the size is another; here it is not.
    position.pos_embed = table[None]
    for block in network.transformer_blocks:
        block.norm1.emb.time_proj = Sinusoids(256, shift=1, cos_first=True).double()
    return network


def theirs(network, x):
    labels = torch.tensor([network.config.num_embeds_ada_norm if label < 0 else label for label in LABELS])
    with torch.no_grad():
        found = in_float64(network)(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(T), labels).sample
    return found.numpy().transpose(0, 2, 3, 1)


def ours(network, params, x):
    predict = predictor(network.clone(dtype=jnp.float64), params, label=jnp.asarray(LABELS))
    return np.asarray(jax.jit(predict)(jnp.asarray(x), jnp.asarray(T, jnp.float64)))


def images(network):
    config = network.config
    return np.random.default_rng(0).normal(size=(len(T), config.sample_size, config.sample_size, config.in_channels))


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@cases
def test_predictions_agree_in_float64(name, tmp_path, x64):
    network = built(**CONFIGS[name])
    network.save_pretrained(tmp_path)
    found, params, channels, image_size = diffusers_dit.load_transformer(tmp_path)
    x = images(network)
    assert x.shape[1:] == (*image_size, channels)
    assert difference(ours(found, params, x), theirs(network, x)) <= 1e-10


@cases
def test_weights_and_config_go_back(name, x64):
    network = built(**CONFIGS[name])
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    config = {**network.config}
    size, channels = config["sample_size"], config["in_channels"]
    eps = config["norm_eps"]
    dit = DiT(
        patch_size=config["patch_size"],
        hidden_size=network.inner_dim,
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        num_classes=5,
        out_channels=config["out_channels"],
        qkv_bias=config["attention_bias"],
        mlp_norm_eps=None if eps == 1e-6 else eps,
        freq_shift=1,
    )
    params = diffusers_dit.to_params(dit, channels, state)
    back = diffusers_dit.to_state(params)
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)

    written = diffusers_dit.write_transformer(dit, channels, (size, size))
    again = diffusers.DiTTransformer2DModel.from_config(written).eval().double()
    shapes = jax.eval_shape(lambda: init_params(dit, (size, size, channels), jax.random.key(0)))
    fresh = jax.tree.map(lambda leaf: np.random.default_rng(1).normal(size=leaf.shape) / 4, shapes)
    again.load_state_dict({key: torch.tensor(value) for key, value in diffusers_dit.to_state(fresh).items()})
    x = images(network)
    assert difference(ours(dit, fresh, x), theirs(again, x)) <= 1e-10


@pytest.mark.parametrize("change", [{"freq_shift": 0}, {"mlp_norm_eps": None}, {"norm_eps": 1e-5}])
def test_the_constants_of_diffusers_matter(change, tmp_path, x64):
    network = built()
    network.save_pretrained(tmp_path)
    found, params, *_ = diffusers_dit.load_transformer(tmp_path)
    x = images(network)
    assert difference(ours(found.clone(**change), params, x), theirs(network, x)) > 1e-8


def test_blocks_with_embeddings_of_their_own_are_refused(tmp_path):
    network = built()
    with torch.no_grad():
        network.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight += 1
    network.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"transformer_blocks\.1\..*embedding_table\.weight differs from .*blocks\.0\."):
        diffusers_dit.load_transformer(tmp_path)


def config_file(tmp_path, **changed):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"_class_name": "DiTTransformer2DModel", **changed}))
    return path


def test_the_config_of_the_published_network(tmp_path):
    # facebook/DiT-XL-2-256, saved by an older diffusers.
    path = config_file(
        tmp_path, _class_name="Transformer2DModel", _diffusers_version="0.12.0.dev0", activation_fn="gelu-approximate",
        attention_bias=True, attention_head_dim=72, cross_attention_dim=None, dropout=0.0, in_channels=4,
        norm_elementwise_affine=False, norm_num_groups=32, norm_type="ada_norm_zero", num_attention_heads=16,
        num_embeds_ada_norm=1000, num_layers=28, num_vector_embeds=None, only_cross_attention=False, out_channels=8,
        patch_size=2, sample_size=32, upcast_attention=False, use_linear_projection=False,
    )  # fmt: skip
    network, channels, image_size = diffusers_dit.read_transformer(path)
    assert (channels, image_size) == (4, (32, 32))
    assert network == DiT(
        hidden_size=1152, depth=28, num_heads=16, num_classes=1000, out_channels=8, mlp_norm_eps=1e-5, freq_shift=1
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"_class_name": "UNet2DModel"}, "_class_name='UNet2DModel' must be one of 'DiTTransformer2DModel'"),
        ({"activation_fn": "geglu"}, "activation_fn='geglu' .can be 'gelu-approximate'"),
        ({"norm_type": "layer_norm"}, "norm_type='layer_norm' .can be 'ada_norm_zero'"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine=True .can be False"),
        ({"upcast_attention": True}, "upcast_attention=True .can be False"),
        ({"cross_attention_dim": 768}, "cross_attention_dim=768 .unknown"),
        ({"num_embeds_ada_norm": None}, "num_embeds_ada_norm=None must be a whole number ≥ 1"),
        ({"num_layers": "two"}, "num_layers='two' must be a whole number ≥ 1"),
        ({"out_channels": 5}, "out_channels=5 must be in_channels=4 or twice that"),
        ({"sample_size": 33}, "patch_size=2 must divide"),
        ({"norm_eps": 2.0}, "mlp_norm_eps=2.0 must be"),
        ({"num_layers": 10**9}, "depth=1000000000 must be"),
    ],
)
def test_configs_that_are_refused(changed, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        diffusers_dit.read_transformer(config_file(tmp_path, **changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "size", "words"),
    [
        ({"num_classes": None}, (8, 8), "has no num_classes=None"),
        ({"freq_shift": 0, "mlp_ratio": 2.0}, (8, 8), "has no mlp_ratio=2.0, no freq_shift=0"),
        ({"norm_eps": 1e-5}, (8, 8), "has no norm_eps=1e-05"),
        ({"out_channels": 4}, (8, 8), "has no 4 output channels for images of 3"),
        ({}, (8, 4), "has no image size 8×4, which is not square"),
    ],
)
def test_networks_that_diffusers_has_nothing_for(changed, size, words):
    network = DiT(**{"num_classes": 3, "freq_shift": 1} | changed)
    with pytest.raises(UserError, match=words):
        diffusers_dit.write_transformer(network, 3, size)
