"""Every field of diffusers' `UNet2DModel`: the same outputs as diffusers in float64, weights both ways, or one line."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

import diffjax as dj  # noqa: E402
from diffjax import interop  # noqa: E402
from diffjax.errors import UserError  # noqa: E402
from diffjax.runs import build  # noqa: E402
from torch_reference.unets import randomised  # noqa: E402
from torch_reference.unets.parts import Sinusoids  # noqa: E402

SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
DOWN = {name: f"{name}DownBlock2D" for name in ("", "Attn")} | {"Resnet": "ResnetDownsampleBlock2D"}
UP = {name: f"{name}UpBlock2D" for name in ("", "Attn")} | {"Resnet": "ResnetUpsampleBlock2D"}


def blocks(down, up):
    """The types of three levels; the way up is given by level too."""
    return {
        "block_out_channels": (8, 12, 16),
        "down_block_types": tuple(DOWN[name] for name in down),
        "up_block_types": tuple(UP[name] for name in reversed(up)),
    }


RESAMPLING = [
    blocks(("Resnet", "Attn", ""), ("", "Attn", "")) | {"downsample_type": "resnet"},
    blocks(("", "Attn", ""), ("", "Attn", "Resnet")) | {"upsample_type": "resnet"},
    blocks(("Resnet", "", ""), ("", "", "Resnet")),
    blocks(("", "Attn", "Attn"), ("", "Attn", "Attn")) | {"downsample_type": "resnet"},
]

# The values of each field, and the other fields that they need to have an effect.
FIELDS = {
    "sample_size": [{"sample_size": (8, 16)}],
    "in_channels": [{"in_channels": 1, "out_channels": 1}, {"in_channels": 6}],
    "out_channels": [{"in_channels": 5, "out_channels": 1}],
    "center_input_sample": [{"center_input_sample": True}, {"center_input_sample": True, "in_channels": 4}],
    "time_embedding_type": [{"time_embedding_type": "positional"}],
    "time_embedding_dim": [{"time_embedding_dim": 12}],
    "freq_shift": [{"freq_shift": 1}],
    "flip_sin_to_cos": [{"flip_sin_to_cos": False}],
    "down_block_types": [blocks(("", "", "Attn"), ("", "", "Attn")), *RESAMPLING],
    "mid_block_type": [{"mid_block_type": None}],
    "up_block_types": [{"up_block_types": ("UNetResAttnUpBlock2D", "UpBlock2D")}],
    "block_out_channels": [
        blocks(("", "", "Attn"), ("", "", "Attn")) | {"block_out_channels": widths, "attention_head_dim": 4}
        for widths in ((24, 32, 64), (16, 8, 4))
    ]
    + [{"block_out_channels": (20,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}],
    "layers_per_block": [{"layers_per_block": 2}],
    "mid_block_scale_factor": [{"mid_block_scale_factor": scale} for scale in (1, 2, 1.4142)],
    "downsample_padding": [{"downsample_padding": padding} for padding in (0, 1)],
    "downsample_type": [{"downsample_type": "resnet"}, *RESAMPLING[:1]],
    "upsample_type": [{"upsample_type": "resnet"}, {"upsample_type": "resnet", "downsample_type": "resnet"}],
    "dropout": [{"dropout": 0.5}],
    "act_fn": [{"act_fn": name} for name in ("silu", "swish", "relu", "gelu", "mish", "SiLU")]
    + [{"act_fn": "relu", "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 5}],
    "attention_head_dim": [{"attention_head_dim": size} for size in (None, 4, 5, 12, 16)],
    "norm_num_groups": [{"norm_num_groups": 2}],
    "attn_norm_num_groups": [
        {"attn_norm_num_groups": groups, "resnet_time_scale_shift": shift}
        for groups in (None, 4, 8)
        for shift in ("default", "scale_shift")
    ],
    "norm_eps": [{"norm_eps": 1e-3}],
    "resnet_time_scale_shift": [{"resnet_time_scale_shift": "scale_shift"}],
    "add_attention": [{"add_attention": False}],
    "class_embed_type": [
        {"class_embed_type": "timestep", "num_class_embeds": 5},
        {"class_embed_type": "timestep"},
        {"class_embed_type": "identity"},
    ],
    "num_class_embeds": [{"num_class_embeds": 5}],
    "num_train_timesteps": [{"num_train_timesteps": 500}],
}
REFUSED = [
    ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier' .can be 'positional'"),
    ({"time_embedding_type": "learned"}, "time_embedding_type='learned'"),
    ({"freq_shift": 2}, "freq_shift=2 must be one of 0, 1"),
    ({"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "block 'SkipDownBlock2D' .can be 'DownBlock2D'"),
    ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "attention at other levels on the way up"),
    ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type='UNetMidBlock2DCrossAttn' .can be"),
    ({"mid_block_scale_factor": 0}, "mid_block_scale_factor=0.0 must be a number > 0"),
    ({"mid_block_scale_factor": "1"}, "mid_block_scale_factor='1' must be a number > 0"),
    ({"block_out_channels": [8, 18]}, r"norm_num_groups=4 must divide the channels of each level, \(8, 18\)"),
    ({"block_out_channels": [8]}, "block_out_channels=.8. .one for each of the blocks."),
    ({"downsample_padding": 2}, "downsample_padding=2 .can be 0, 1"),
    ({"downsample_type": "fir"}, "downsample_type='fir' .can be 'conv', 'resnet'"),
    ({"upsample_type": None}, "upsample_type=None .can be 'conv', 'resnet'"),
    ({"act_fn": "elu"}, "act_fn='elu' .can be 'silu', 'swish', 'relu', 'gelu', 'mish'"),
    ({"act_fn": 3}, "act_fn=3 must be the name of an activation"),
    ({"attention_head_dim": 20}, "attention_head_dim=20 must be at most 16 channels"),
    ({"attn_norm_num_groups": 3}, "attn_norm_num_groups=3 must divide 16 channels"),
    ({"attn_norm_num_groups": 0}, "attn_norm_num_groups=0 must be a whole number ≥ 1, or null"),
    ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial' .can be"),
    ({"class_embed_type": "projection"}, "class_embed_type='projection' .can be None, 'timestep', 'identity'"),
    ({"class_embed_type": "timestep"}, "does not say the number of its classes .num_class_embeds.: give num_classes="),
    ({"center_input_sample": 1}, "center_input_sample=1 must be True or False"),
    ({"in_channels": 0}, "in_channels=0 must be a whole number ≥ 1"),
    ({"norm_num_groups": None}, "norm_num_groups=None must be a whole number"),
    ({"cross_attention_dim": 8}, r"cross_attention_dim=8 \(unknown\)"),
]
CASES = [options for listed in FIELDS.values() for options in listed]
every_case = pytest.mark.parametrize("options", CASES, ids=str)
pytestmark = pytest.mark.usefixtures("x64")


def in_float64(network):
    """diffusers computes sinusoids in float32 always."""
    config = network.config
    network.time_proj = Sinusoids(
        config.block_out_channels[0], shift=config.freq_shift, cos_first=config.flip_sin_to_cos
    )
    return network.double().eval()


def saved(folder, **options):
    network = in_float64(randomised(diffusers.UNet2DModel(**SMALL | options), 0))
    network.save_pretrained(folder / "unet")
    diffusers.DDPMScheduler().save_pretrained(folder / "scheduler")
    return network


def loaded(folder, options):
    unknown = options.get("class_embed_type") == "timestep" and "num_class_embeds" not in options
    return interop.load(folder, **({"num_classes": 5} if unknown else {}))


def inputs(config):
    """(x, t, label or None), NCHW: x with all input channels."""
    rng, size = np.random.default_rng(0), config.sample_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    label = None
    if config.class_embed_type == "identity":
        label = rng.normal(size=(3, 4 * config.block_out_channels[0]))
    elif config.class_embed_type or config.num_class_embeds:
        label = np.array([1, 4, 0])
    return rng.normal(size=(3, config.in_channels, *size)), np.array([0, 37, 999]), label


def theirs(network):
    x, t, label = (None if a is None else torch.as_tensor(a) for a in inputs(network.config))
    with torch.no_grad():
        return network(x, t, label).sample.permute(0, 2, 3, 1).numpy()


def ours(run, config):
    x, t, label = (None if a is None else jnp.asarray(a) for a in inputs(config))
    x, channels = x.transpose(0, 2, 3, 1), run.image_shape[-1]
    condition = {} if label is None else {"label": label}
    if x.shape[-1] > channels:
        condition["image"] = x[..., channels:]
    network = run.network.clone(dtype=jnp.float64)
    return np.asarray(dj.models.predictor(network, run.params, **condition)(x[..., :channels], t))


def difference(found, expected):
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_every_field_has_a_case():
    fields = set(inspect.signature(diffusers.UNet2DModel).parameters) - {"self"}
    assert set(FIELDS) == fields
    assert all(field in options for field, listed in FIELDS.items() for options in listed[:1])


@every_case
def test_the_same_outputs_and_weights_both_ways(options, tmp_path):
    network = saved(tmp_path / "theirs", **options)
    run, expected = loaded(tmp_path / "theirs", options), theirs(network)
    found = ours(run, network.config)
    assert found.dtype == np.float64
    assert difference(found, expected) < 1e-12
    if run.task.condition_channels:
        with pytest.raises(UserError, match="diffusers' pipelines have no condition image"):
            interop.export(tmp_path / "ours", run)
        return
    if not run.task.label_size:
        assert build.task(run.config).network == run.network
    folder = interop.export(tmp_path / "ours", run)
    state = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    assert state.keys() == network.state_dict().keys()
    assert all(np.array_equal(state[key], value.numpy()) for key, value in network.state_dict().items())
    again = diffusers.UNet2DModel.from_pretrained(folder / "unet", torch_dtype=torch.float64)
    np.testing.assert_array_equal(theirs(in_float64(again)), expected)
    assert interop.load(folder).network == run.network


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=str)
def test_refused_in_one_line(options, words, tmp_path):
    saved(tmp_path)
    path = tmp_path / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    with pytest.raises(UserError, match=words) as caught:
        interop.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "variance"),
    [(3, 6, "fixed_small"), (3, 4, "fixed_small"), (3, 3, "learned_range"), (6, 6, "learned_range")],
)
def test_channels_that_do_not_go_with_the_variance(inputs, outputs, variance, tmp_path):
    saved(tmp_path, in_channels=inputs, out_channels=outputs)
    diffusers.DDPMScheduler(variance_type=variance).save_pretrained(tmp_path / "scheduler")
    words = f"in_channels={inputs} and out_channels={outputs} does not go with variance_type '{variance}'"
    with pytest.raises(UserError, match=words):
        interop.load(tmp_path)


@pytest.mark.parametrize(("inputs", "outputs", "variance"), [(6, 3, "fixed_small"), (7, 6, "learned_range")])
def test_a_network_with_a_condition_image(inputs, outputs, variance, tmp_path):
    """The first channels are x's, as in diffusers' `LDMSuperResolutionPipeline`."""
    saved(tmp_path, in_channels=inputs, out_channels=outputs)
    diffusers.DDPMScheduler(variance_type=variance).save_pretrained(tmp_path / "scheduler")
    run = interop.load(tmp_path)
    assert (run.image_shape, run.task.condition_channels) == ((8, 8, 3), inputs - 3)
    with pytest.raises(UserError, match=f"takes a condition image of {inputs - 3} channels: sample it with dj.sample"):
        run.sample(1)
    x, t, image = jnp.ones((2, 8, 8, 3)), jnp.array([5, 900]), jnp.ones((2, 8, 8, inputs - 3))
    found = jax.eval_shape(run.predictor(image=image), x, t)
    assert (found.eps if variance == "learned_range" else found).shape == x.shape


def test_a_network_that_takes_vectors(tmp_path):
    saved(tmp_path, class_embed_type="identity")
    run = interop.load(tmp_path)
    with pytest.raises(UserError, match="takes a vector of 32 numbers for each image: sample it with dj.sample"):
        run.sample(1)
    with pytest.raises(UserError, match="config.model.class_embedding: 'identity' needs label=, float"):
        build.task(run.config)


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        ({}, 5, "num_classes=5 must be None, as .*config.json has it"),
        ({"num_class_embeds": 3}, 5, "num_classes=5 must be 3, as"),
        ({"class_embed_type": "timestep", "num_class_embeds": 3}, 5, "num_classes=5 must be 3, as"),
        ({"class_embed_type": "identity"}, 5, "num_classes=5 must be None, as"),
        ({"class_embed_type": "timestep"}, 0, "num_class_embeds=0 must be a whole number ≥ 1"),
    ],
)
def test_the_number_of_classes(options, given, words, tmp_path):
    saved(tmp_path, **options)
    with pytest.raises(UserError, match=words):
        interop.load(tmp_path, num_classes=given)
