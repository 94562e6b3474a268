"""The networks of torch_reference.unets are the published ones: sizes, names, and numbers against diffusers."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from torch_reference.unets import abarankab, num_parameters, openai, pesser, randomised, sr3  # noqa: E402

BETAS = np.linspace(1e-6, 1e-2, 2000)


def hollow(build, **config):
    """A network with shapes and no numbers."""
    with torch.device("meta"):
        return build(**config)


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize(
    ("build", "config", "parameters"),
    [
        (pesser.Model, pesser.CIFAR10, 35_746_307),
        (pesser.Model, pesser.LSUN, 113_673_219),
        (pesser.Model, pesser.CELEBA, 78_700_803),
        (openai.UNetModel, openai.IDDPM_CIFAR10, 52_546_438),
        (openai.UNetModel, openai.IMAGENET64, 121_063_942),
        (openai.UNetModel, openai.IMAGENET64_COND, 273_049_350),
        (openai.UNetModel, openai.LSUN, 113_676_678),
        (abarankab.UNet, abarankab.CIFAR10, 35_746_307),
        (abarankab.UNet, abarankab.CIFAR10_COND, 35_796_227),
        (sr3.UNet, sr3.FACES_16_128, 97_807_491),
        (sr3.UNet, sr3.FACES_64_512, 155_334_339),
    ],
)
def test_parameter_counts(build, config, parameters):
    assert num_parameters(hollow(build, **config)) == parameters


@pytest.mark.parametrize(
    ("network", "children"),
    [
        (pesser.Model(**pesser.TINY), "temb conv_in down mid up norm_out conv_out"),
        (openai.UNetModel(**openai.TINY), "time_embed label_emb input_blocks middle_block output_blocks out"),
        (abarankab.UNet(**abarankab.TINY), "time_mlp init_conv downs ups mid out_norm out_conv"),
        (sr3.UNet(**sr3.TINY), "noise_level_mlp downs mid ups final_conv"),
    ],
)
def test_order_of_keys(network, children):
    assert list(dict.fromkeys(key.split(".")[0] for key in network.state_dict())) == children.split()


def test_pesser_keys():
    state = shapes(hollow(pesser.Model, **pesser.CIFAR10))
    assert len(state) == 328
    assert list(state)[:3] == ["temb.dense.0.weight", "temb.dense.0.bias", "temb.dense.1.weight"]
    expected = {
        "temb.dense.1.weight": (512, 512),
        "conv_in.weight": (128, 3, 3, 3),
        "down.1.block.0.norm1.weight": (128,),
        "down.1.block.0.conv1.weight": (256, 128, 3, 3),
        "down.1.block.0.temb_proj.weight": (256, 512),
        "down.1.block.0.norm2.bias": (256,),
        "down.1.block.0.conv2.weight": (256, 256, 3, 3),
        "down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "down.1.attn.1.norm.weight": (256,),
        "down.1.attn.1.q.weight": (256, 256, 1, 1),
        "down.1.attn.1.proj_out.bias": (256,),
        "down.2.downsample.conv.weight": (256, 256, 3, 3),
        "mid.block_1.conv1.weight": (256, 256, 3, 3),
        "mid.attn_1.k.weight": (256, 256, 1, 1),
        "mid.block_2.conv2.bias": (256,),
        "up.0.block.0.nin_shortcut.weight": (128, 384, 1, 1),
        "up.0.block.2.conv1.weight": (128, 256, 3, 3),
        "up.1.attn.2.v.weight": (256, 256, 1, 1),
        "up.3.upsample.conv.weight": (256, 256, 3, 3),
        "norm_out.weight": (128,),
        "conv_out.weight": (3, 128, 3, 3),
    }
    assert expected.items() <= state.items()
    assert not [key for key in state if re.match(r"(down\.3\.downsample|up\.0\.upsample|down\.[023]\.attn)", key)]


def test_openai_keys():
    state = shapes(hollow(openai.UNetModel, **openai.IMAGENET64_COND))
    expected = {
        "time_embed.0.weight": (768, 192),
        "time_embed.2.weight": (768, 768),
        "label_emb.weight": (1000, 768),
        "input_blocks.0.0.weight": (192, 3, 3, 3),
        "input_blocks.1.0.in_layers.0.weight": (192,),
        "input_blocks.1.0.in_layers.2.weight": (192, 192, 3, 3),
        "input_blocks.1.0.emb_layers.1.weight": (384, 768),
        "input_blocks.1.0.out_layers.0.weight": (192,),
        "input_blocks.1.0.out_layers.3.weight": (192, 192, 3, 3),
        "input_blocks.4.0.op.weight": (192, 192, 3, 3),
        "input_blocks.5.0.skip_connection.weight": (384, 192, 1, 1),
        "input_blocks.9.1.norm.weight": (576,),
        "input_blocks.9.1.qkv.weight": (1728, 576, 1),
        "input_blocks.9.1.proj_out.weight": (576, 576, 1),
        "middle_block.0.in_layers.2.weight": (768, 768, 3, 3),
        "middle_block.1.qkv.bias": (2304,),
        "middle_block.2.out_layers.3.bias": (768,),
        "output_blocks.3.2.conv.weight": (768, 768, 3, 3),
        "output_blocks.11.1.conv.weight": (384, 384, 3, 3),
        "out.0.weight": (192,),
        "out.2.weight": (6, 192, 3, 3),
    }
    assert expected.items() <= state.items()
    guided = shapes(hollow(openai.UNetModel, **openai.TINY_GUIDED))
    assert guided["input_blocks.2.0.in_layers.2.weight"] == (32, 32, 3, 3)  # where .op was
    assert guided["output_blocks.1.2.out_layers.3.weight"] == (64, 64, 3, 3)  # where .conv was


def test_abarankab_keys():
    state = shapes(abarankab.GaussianDiffusion(abarankab.UNet(**abarankab.TINY), BETAS))
    network = {
        "time_mlp.1.weight": (128, 32),
        "time_mlp.3.weight": (128, 128),
        "init_conv.weight": (32, 3, 3, 3),
        "downs.0.norm_1.weight": (32,),
        "downs.0.conv_1.weight": (32, 32, 3, 3),
        "downs.0.norm_2.weight": (32,),
        "downs.0.conv_2.1.weight": (32, 32, 3, 3),
        "downs.0.time_bias.weight": (32, 128),
        "downs.0.class_bias.weight": (5, 32),
        "downs.1.downsample.weight": (32, 32, 3, 3),
        "downs.2.residual_connection.weight": (64, 32, 1, 1),
        "downs.2.attention.norm.weight": (64,),
        "downs.2.attention.to_qkv.weight": (192, 64, 1, 1),
        "mid.0.attention.to_out.weight": (64, 64, 1, 1),
        "mid.1.conv_1.weight": (64, 64, 3, 3),
        "ups.0.conv_1.weight": (64, 128, 3, 3),
        "ups.2.upsample.1.weight": (64, 64, 3, 3),
        "ups.4.conv_1.weight": (32, 64, 3, 3),
        "out_norm.weight": (32,),
        "out_conv.weight": (3, 32, 3, 3),
    }
    for prefix in ("model", "ema_model"):
        assert {f"{prefix}.{key}": shape for key, shape in network.items()}.items() <= state.items()
    assert [key for key, shape in state.items() if shape == BETAS.shape] == [
        *("betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("reciprocal_sqrt_alphas", "remove_noise_coeff", "sigma"),
    ]


def test_sr3_keys():
    network = hollow(sr3.UNet, **sr3.FACES_16_128)
    state = shapes(sr3.GaussianDiffusion(network, BETAS))
    expected = {
        "denoise_fn.noise_level_mlp.1.weight": (256, 64),
        "denoise_fn.noise_level_mlp.3.weight": (64, 256),
        "denoise_fn.downs.0.weight": (64, 6, 3, 3),
        "denoise_fn.downs.1.res_block.noise_func.noise_func.0.weight": (64, 64),
        "denoise_fn.downs.1.res_block.block1.block.0.weight": (64,),
        "denoise_fn.downs.1.res_block.block1.block.3.weight": (64, 64, 3, 3),
        "denoise_fn.downs.1.res_block.block2.block.3.bias": (64,),
        "denoise_fn.downs.3.conv.weight": (64, 64, 3, 3),
        "denoise_fn.downs.4.res_block.res_conv.weight": (128, 64, 1, 1),
        "denoise_fn.downs.10.attn.norm.weight": (512,),
        "denoise_fn.downs.10.attn.qkv.weight": (1536, 512, 1, 1),
        "denoise_fn.mid.0.attn.out.bias": (512,),
        "denoise_fn.mid.1.res_block.block2.block.0.bias": (512,),
        "denoise_fn.ups.3.conv.weight": (512, 512, 3, 3),
        "denoise_fn.final_conv.block.0.weight": (64,),
        "denoise_fn.final_conv.block.3.weight": (3, 64, 3, 3),
    }
    assert expected.items() <= state.items()
    assert "denoise_fn.downs.10.attn.qkv.bias" not in state
    assert "denoise_fn.mid.1.attn.qkv.weight" not in state
    buffers = [key for key, shape in state.items() if shape == BETAS.shape]
    assert len(buffers) == 12
    assert len(state) == len(buffers) + len(network.state_dict())


def inputs(channels, *, size=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.tensor([3, 977])


NETWORKS = [
    (pesser.Model, pesser.TINY),
    (openai.UNetModel, openai.TINY),
    (openai.UNetModel, openai.TINY_GUIDED),
    (abarankab.UNet, abarankab.TINY),
    (sr3.UNet, sr3.TINY),
]


@pytest.mark.parametrize(("build", "config"), NETWORKS)
def test_randomised_networks(build, config):
    single, double = randomised(build(**config), seed=1), randomised(build(**config).double(), seed=1)
    assert all(parameter.ne(0).all() for parameter in single.parameters())
    x, t = inputs(config.get("in_channel", 3))
    arguments = [t / 1000 if build is sr3.UNet else t]
    if config.get("num_classes"):
        arguments.append(torch.tensor([1, 4]))
    with torch.no_grad():
        reference, rounded = double(x, *arguments), single(x.float(), *arguments)
    assert reference.dtype == torch.float64
    assert 0.2 < reference.std() < 5
    assert torch.linalg.norm(reference - rounded) / torch.linalg.norm(reference) < 1e-4
    permuted = randomised(build(**config).double(), seed=2)
    assert not torch.allclose(permuted(x, *arguments), reference, rtol=0.1)


# Against diffusers. Its sinusoids are float32, so they are compared by themselves, and then replaced.


@pytest.mark.parametrize(
    ("ours", "flip_sin_to_cos", "freq_shift"),
    [
        (pesser.Model(**pesser.TINY).sinusoids, False, 1),
        (openai.UNetModel(**openai.TINY).sinusoids, True, 0),
        (abarankab.UNet(**abarankab.TINY).time_mlp[0], False, 0),
        (sr3.UNet(**sr3.TINY).noise_level_mlp[0], False, 0),
    ],
)
def test_sinusoids(ours, flip_sin_to_cos, freq_shift):
    theirs = diffusers.models.embeddings.Timesteps(32, flip_sin_to_cos, freq_shift)
    t = torch.tensor([0.0, 0.3, 1, 10, 500.5, 999])
    torch.testing.assert_close(ours(t), theirs(t), rtol=0, atol=2e-4)
    torch.testing.assert_close(ours.double()(t), theirs(t).double(), rtol=0, atol=2e-4)


def unet_2d(*, attended, widths, **options):
    """diffusers' network in float64, with attention on the levels `attended`."""
    resnet = options.get("downsample_type") == "resnet"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    levels = range(len(widths))
    settings = {
        "attention_head_dim": None,
        "freq_shift": 0,
        "flip_sin_to_cos": False,
        "norm_eps": 1e-5,
        "downsample_padding": 1,
        "attn_norm_num_groups": 32,
        "block_out_channels": widths,
        "down_block_types": tuple("AttnDownBlock2D" if level in attended else plain[0] for level in levels),
        "up_block_types": tuple("AttnUpBlock2D" if level in attended else plain[1] for level in reversed(levels)),
    }
    return diffusers.UNet2DModel(**settings | options).double().eval()


def assert_same(theirs, ours, *, channels=3, size=8, t=None, labels=None):
    x, index = inputs(channels, size=size)
    t = index if t is None else t
    with torch.no_grad():
        expected = ours(x, t, *([] if labels is None else [labels]))
        found = theirs(x, t, labels if theirs.class_embedding is not None else None).sample
    assert torch.linalg.norm(found - expected) <= 1e-10 * torch.linalg.norm(expected)


PESSER_TO_DIFFUSERS = [
    (r"temb\.dense\.0", "time_embedding.linear_1"),
    (r"temb\.dense\.1", "time_embedding.linear_2"),
    (r"mid\.attn_1", "mid_block.attentions.0"),
    (r"mid\.block_1", "mid_block.resnets.0"),
    (r"mid\.block_2", "mid_block.resnets.1"),
    (r"(down|up)\.(\d+)\.block\.", r"\1_blocks.\2.resnets."),
    (r"(down|up)\.(\d+)\.attn\.", r"\1_blocks.\2.attentions."),
    (r"(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0."),
    (r"(attentions\.\d+)\.norm", r"\1.group_norm"),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out", r"\1.to_out.0"),
    ("temb_proj", "time_emb_proj"),
    ("nin_shortcut", "conv_shortcut"),
    ("norm_out", "conv_norm_out"),
]


def pesser_to_diffusers(state, levels):
    def renamed(key):
        for pattern, replacement in PESSER_TO_DIFFUSERS:
            key = re.sub(pattern, replacement, key)
        return re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", key)

    return {
        renamed(key): value.flatten(1) if "attn" in key and key.endswith("weight") and value.ndim > 1 else value
        for key, value in state.items()
    }


def test_pesser_is_the_diffusers_network():
    config = {**pesser.CIFAR10, "ch": 32}
    ours = randomised(pesser.Model(**config).double(), seed=0)
    theirs = unet_2d(
        attended=[1],
        widths=(32, 64, 64, 64),
        sample_size=32,
        layers_per_block=2,
        freq_shift=1,
        norm_eps=1e-6,
        downsample_padding=0,
    )
    state = pesser_to_diffusers(ours.state_dict(), levels=4)
    assert len(state) == 328
    theirs.load_state_dict(state, strict=True)
    theirs.time_proj = ours.sinusoids
    assert_same(theirs, ours, size=32)


# The other three meet the same network, their modules and diffusers' paired in the order in which they run.

RESAMPLER = {"op": "conv", "conv": "conv", "downsample": "conv", "upsample.1": "conv"}
NAMES = {
    openai.ResBlock: {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    },
    abarankab.ResidualBlock: {
        "norm_1": "norm1",
        "conv_1": "conv1",
        "time_bias": "time_emb_proj",
        "norm_2": "norm2",
        "conv_2.1": "conv2",
        "residual_connection": "conv_shortcut",
    },
    sr3.ResnetBlock: {
        "block1.block.0": "norm1",
        "block1.block.3": "conv1",
        "noise_func.noise_func.0": "time_emb_proj",
        "block2.block.0": "norm2",
        "block2.block.3": "conv2",
        "res_conv": "conv_shortcut",
    },
    openai.AttentionBlock: {"norm": "group_norm", "proj_out": "to_out.0"},
    abarankab.AttentionBlock: {"norm": "group_norm", "to_out": "to_out.0"},
    sr3.SelfAttention: {"norm": "group_norm", "out": "to_out.0"},
}


def run_order(net):
    """diffusers' residual blocks, attentions and resamplers."""
    for block in (*net.down_blocks, net.mid_block, *net.up_blocks):
        attentions = list(getattr(block, "attentions", None) or [])
        if block is net.mid_block:
            yield from (block.resnets[0], attentions[0], block.resnets[1])
            continue
        for index, resnet in enumerate(block.resnets):
            yield from (resnet, *attentions[index : index + 1])
        for name in ("downsamplers", "upsamplers"):
            yield from getattr(block, name, None) or []


def split_qkv(module, state):
    """qkv as `[heads, 3, rows]`, or `[3, heads, rows]` in OpenAI's new order, to three; a missing bias is zero."""
    name = "to_qkv" if "to_qkv.weight" in state else "qkv"
    weight = state.pop(f"{name}.weight")
    bias = state.pop(f"{name}.bias", torch.zeros(len(weight), dtype=weight.dtype))
    heads, new_order = getattr(module, "heads", 1), getattr(module, "new_order", False)
    split = {}
    for leaf, value in (("weight", weight.flatten(1)), ("bias", bias)):
        parts = value.unflatten(0, (3, heads, -1)) if new_order else value.unflatten(0, (heads, 3, -1)).transpose(0, 1)
        split |= {f"to_{letter}.{leaf}": part.flatten(0, 1) for letter, part in zip("qkv", parts, strict=True)}
    return split


def load_blocks(theirs, ours):
    for target, source in zip(run_order(theirs), ours, strict=True):
        state = source.state_dict()
        split = split_qkv(source, state) if hasattr(target, "to_q") else {}
        names = NAMES.get(type(source), RESAMPLER)
        for key, value in state.items():
            name, leaf = key.rsplit(".", 1)
            split[f"{names[name]}.{leaf}"] = value.flatten(1) if names[name] == "to_out.0" and value.ndim > 1 else value
        target.load_state_dict(split, strict=True)


def load_ends(theirs, conv_in, norm, conv_out, linears):
    pairs = [(theirs.conv_in, conv_in), (theirs.conv_norm_out, norm), (theirs.conv_out, conv_out)]
    pairs += zip((theirs.time_embedding.linear_1, theirs.time_embedding.linear_2), linears, strict=True)
    for target, source in pairs:
        target.load_state_dict(source.state_dict(), strict=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_scale_shift_norm": False, "num_heads": 1},
        {"num_res_blocks": 2, "channel_mult": (1, 2, 3), "attention_resolutions": (1, 4), "num_head_channels": 16},
        {"use_new_attention_order": True},
        {"resblock_updown": True, "use_new_attention_order": True},
    ],
)
def test_openai_is_a_diffusers_network(changes):
    config = {**openai.TINY, **changes}
    ours = randomised(openai.UNetModel(**config).double(), seed=0)
    kind = "resnet" if config.get("resblock_updown") else "conv"
    attended = [level for level in range(3) if 2**level in config["attention_resolutions"]]
    theirs = unet_2d(
        attended=attended,
        widths=tuple(32 * multiple for multiple in config["channel_mult"]),
        layers_per_block=config["num_res_blocks"],
        out_channels=6,
        flip_sin_to_cos=True,
        downsample_type=kind,
        upsample_type=kind,
        num_class_embeds=5,
        resnet_time_scale_shift="scale_shift" if config["use_scale_shift_norm"] else "default",
        attention_head_dim=config.get("num_head_channels", 64 // config["num_heads"]),
    )
    stages = (*ours.input_blocks[1:], ours.middle_block, *ours.output_blocks)
    load_blocks(theirs, [module for stage in stages for module in stage])
    load_ends(theirs, ours.input_blocks[0][0], ours.out[0], ours.out[2], ours.time_embed[::2])
    theirs.class_embedding.load_state_dict(ours.label_emb.state_dict())
    theirs.time_proj = ours.sinusoids
    assert_same(theirs, ours, t=torch.tensor([3.25, 977.0]), labels=torch.tensor([1, 4]))


@pytest.mark.parametrize("label", [None, 3])
def test_abarankab_is_a_diffusers_network(label):
    """With one class for the whole batch its embedding is a bias, which joins the time's."""
    config = {**abarankab.TINY, "num_classes": None if label is None else 5, "num_res_blocks": 2}
    ours = randomised(abarankab.UNet(**config).double(), seed=0)
    labels = None if label is None else torch.tensor([label, label])
    with torch.no_grad():
        theirs = unet_2d(attended=[1], widths=(32, 64), layers_per_block=2)
        folded = abarankab.UNet(**config | {"num_classes": None}).double().eval()
        folded.load_state_dict({key: value for key, value in ours.state_dict().items() if "class_bias" not in key})
        if label is not None:
            for name, part in ours.named_modules():
                if isinstance(part, abarankab.ResidualBlock):
                    folded.get_submodule(name).time_bias.bias += part.class_bias.weight[label]
    layers = []
    for layer in (*folded.downs, *folded.mid, *folded.ups):
        attention = getattr(layer, "attention", None)
        if isinstance(attention, abarankab.AttentionBlock):
            layer.attention = torch.nn.Identity()
            layers += [layer, attention]
        else:
            layers.append(layer)
    load_blocks(theirs, layers)
    load_ends(theirs, folded.init_conv, folded.out_norm, folded.out_conv, folded.time_mlp[1::2])
    theirs.time_proj = ours.time_mlp[0]
    assert_same(theirs, ours, labels=labels)


def test_abarankab_labels_and_padding():
    network = randomised(abarankab.UNet(**abarankab.TINY, initial_pad=2).double(), seed=0)
    x, t = inputs(3, size=4)
    out = network(x, t, torch.tensor([1, 4]))
    assert out.shape == x.shape
    torch.testing.assert_close(out[1:], network(x[1:], t[1:], torch.tensor([4])))


def test_sr3_is_a_diffusers_network():
    """One whose embedding is narrow and whose residual blocks project it without an activation."""
    diffusion = sr3.GaussianDiffusion(sr3.UNet(**sr3.TINY | {"res_blocks": 2}), BETAS)
    ours = randomised(diffusion.double(), seed=0).denoise_fn
    theirs = unet_2d(attended=[1], widths=(32, 64), layers_per_block=2, in_channels=6)
    for part in theirs.modules():
        if isinstance(part, diffusers.models.resnet.ResnetBlock2D):
            part.time_emb_proj = torch.nn.Linear(32, part.out_channels).double()
            part.skip_time_act = True
    theirs.time_embedding.linear_2 = torch.nn.Linear(128, 32).double()
    layers = []
    for layer in (*ours.downs[1:], *ours.mid, *ours.ups):
        if isinstance(layer, sr3.ResnetBlocWithAttn):
            layers += [layer.res_block, *([layer.attn] if hasattr(layer, "attn") else [])]
        else:
            layers.append(layer)
    load_blocks(theirs, layers)
    load_ends(theirs, ours.downs[0], ours.final_conv.block[0], ours.final_conv.block[3], ours.noise_level_mlp[1::2])
    theirs.time_proj = ours.noise_level_mlp[0]
    level = torch.tensor([0.9, 0.1], dtype=torch.float64)
    assert_same(theirs, ours, channels=6, t=level)

    x, _ = inputs(6)
    condition, noisy = x[:, :3], x[:, 3:]
    torch.testing.assert_close(diffusion(noisy, condition, level[:, None]), ours(x, level))
