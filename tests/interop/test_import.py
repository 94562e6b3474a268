"""Networks built in PyTorch, saved, imported: the same outputs. Diffusers both ways."""

import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

import diffjax as dj  # noqa: E402
from diffjax import interop  # noqa: E402
from diffjax.errors import UserError  # noqa: E402
from diffjax.runs import Run, build, resolve  # noqa: E402
from torch_reference.unets import abarankab, openai, pesser, randomised, sr3  # noqa: E402
from torch_reference.unets.parts import Sinusoids  # noqa: E402

BETAS = np.linspace(1e-4, 0.02, 1000)
T = (0, 3, 500, 999)
LABELS = (1, 4, 0, 2)


def unet_2d(**options):
    """diffusers' network, small, with attention on the levels `attended` of `widths`."""
    widths, attended = options.pop("widths", (32, 64)), options.pop("attended", (1,))
    resnet = options.get("downsample_type") == "resnet"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    levels = range(len(widths))
    settings = {
        "sample_size": 8,
        "attention_head_dim": None,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "norm_eps": 1e-6,
        "downsample_padding": 0,
        "layers_per_block": 1,
        "block_out_channels": widths,
        "down_block_types": tuple("AttnDownBlock2D" if level in attended else plain[0] for level in levels),
        "up_block_types": tuple("AttnUpBlock2D" if level in attended else plain[1] for level in reversed(levels)),
    }
    return diffusers.UNet2DModel(**settings | options)


GUIDED_2D = {
    "attention_head_dim": 16,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 32,
    "num_class_embeds": 5,
    "out_channels": 6,
}
CIFAR_2D = {
    "widths": (128, 256, 256, 256),
    "attended": (1,),
    "layers_per_block": 2,
    "sample_size": 32,
}


class Case:
    """A network in PyTorch, how its file is made, and the options of the import."""

    def __init__(self, build, save, call, options=None, *, labels=False, image=False, size=8):
        self.build, self.save, self.call, self.options = build, save, call, options or {}
        self.labels, self.image, self.size = labels, image, size


def save_folder(network, folder, *, variance="fixed_large"):
    scheduler = diffusers.DDPMScheduler(variance_type=variance)
    network.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


def save_flat_old_names(network, folder):
    """As hubs had it: no subfolders, attention by its old names, a PyTorch file."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in network.state_dict().items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.") if "attentions" in key else key
        state[key] = value
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    (folder / "config.json").write_text(network.to_json_string())
    (folder / "scheduler_config.json").write_text(diffusers.DDPMScheduler().to_json_string())
    return folder


def saved(state, folder, name):
    torch.save(state, folder / name)
    return folder / name


def save_run(network, folder):
    """A run of ermongroup's: the EMA last, other parameters first."""
    state = network.state_dict()
    other = {f"module.{key}": value + 1 for key, value in state.items()}
    optimizer = {"state": {0: {"step": 5}}, "param_groups": [{"lr": 2e-4}]}
    return saved([other, optimizer, 3, 5, {f"module.{key}": value for key, value in state.items()}], folder, "ckpt.pth")


def save_abarankab(network, folder):
    whole = abarankab.GaussianDiffusion(network, BETAS).state_dict()
    whole |= {key: value + 1 for key, value in whole.items() if key.startswith("model.")}
    return saved(whole, folder, "c-model.pth")


def plain(network, x, t, label, image):
    return network(x, t)


def labelled(network, x, t, label, image):
    return network(x, t, label)


def diffused(network, x, t, label, image):
    return network(x, t, label).sample


def restored(network, x, t, label, image):
    return network(torch.cat([image, x], dim=1), torch.as_tensor(np.cumprod(1 - BETAS) ** 0.5)[t].to(x.dtype))


SIZE = {"image_size": 8}
OPENAI = SIZE | {"diffusion_steps": 1000, "noise_schedule": "linear"}
CASES = {
    "diffusers": Case(unet_2d, save_folder, diffused),
    "diffusers, old names": Case(unet_2d, save_flat_old_names, diffused),
    "diffusers, guided": Case(
        lambda: unet_2d(**GUIDED_2D),
        lambda network, folder: save_folder(network, folder, variance="learned_range"),
        diffused,
        labels=True,
    ),
    "diffusers, CIFAR-10": Case(lambda: unet_2d(**CIFAR_2D), save_folder, diffused, size=32),
    "pesser": Case(
        lambda: pesser.Model(**pesser.TINY),
        lambda network, folder: saved(network.state_dict(), folder, "a.ckpt"),
        plain,
        SIZE,
    ),
    "ermongroup": Case(lambda: pesser.Model(**pesser.TINY), save_run, plain, SIZE),
    "improved": Case(
        lambda: openai.UNetModel(**openai.TINY),
        lambda network, folder: saved(network.state_dict(), folder, "a.pt"),
        labelled,
        {**OPENAI, "num_heads": 4},
        labels=True,
    ),
    "guided": Case(
        lambda: openai.UNetModel(**openai.TINY_GUIDED),
        lambda network, folder: saved(network.state_dict(), folder, "a.pt"),
        labelled,
        {**OPENAI, "num_head_channels": 16, "use_new_attention_order": True},
        labels=True,
    ),
    "abarankab": Case(lambda: abarankab.UNet(**abarankab.TINY), save_abarankab, labelled, SIZE, labels=True),
    "SR3": Case(
        lambda: sr3.UNet(**sr3.TINY),
        lambda network, folder: saved(sr3.GaussianDiffusion(network, BETAS).state_dict(), folder, "I1_E1_gen.pth"),
        restored,
        SIZE,
        image=True,
    ),
}


def built(case, dtype, seed=0):
    network = randomised(case.build().to(dtype), seed)
    if isinstance(network, diffusers.UNet2DModel):
        # diffusers computes sinusoids in float32 always.
        config = network.config
        waves = config.block_out_channels[0]
        network.time_proj = Sinusoids(waves, shift=config.freq_shift, cos_first=config.flip_sin_to_cos).to(dtype)
    return network


def inputs(case, dtype):
    """(x, t, label, condition image), NCHW."""
    rng = np.random.default_rng(0)
    batch = len(T) if case.size < 32 else 2
    x, image = rng.normal(size=(2, batch, 3, case.size, case.size)).astype(dtype)
    return x, np.array(T)[-batch:], np.array(LABELS)[:batch], image


def theirs(case, network, dtype):
    x, t, label, image = (torch.as_tensor(a) for a in inputs(case, dtype))
    with torch.no_grad():
        return case.call(network, x, t, label if case.labels else None, image).permute(0, 2, 3, 1).numpy()


def quickly(function, *args):
    """Compiled without optimization: called but once, it would compile far longer than it runs."""
    return jax.jit(lambda function, *args: function(*args), compiler_options={"xla_backend_optimization_level": 0})(
        function, *args
    )


def ours(case, run, dtype, **changed):
    """The imported network's output: ε̂, and the variance of a network that predicts one."""
    x, t, label, image = inputs(case, dtype)
    condition = {"label": jnp.asarray(label)} if case.labels else {}
    if case.image:
        condition["image"] = jnp.asarray(image.transpose(0, 2, 3, 1))
        t = run.schedule.sqrt_alpha_bars[t].astype(dtype)
    network = run.network.clone(dtype=dtype, **changed)
    predict = dj.models.predictor(network, run.params, **condition)
    return np.asarray(quickly(predict, jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(t)))


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "diffusers, CIFAR-10" else name for name in CASES]
)
def test_float64(name, tmp_path, x64):
    case = CASES[name]
    network = built(case, torch.float64)
    run = interop.load(case.save(network, tmp_path), **case.options)
    found, expected = ours(case, run, np.float64), theirs(case, network, np.float64)
    # SR3's and abarankab's β are in the file, in float32.
    assert difference(found, expected) < 1e-6
    if not case.image:
        assert difference(found, expected) < 1e-12


@pytest.mark.parametrize("name", [name for name in CASES if name != "diffusers, CIFAR-10"])
def test_float32(name, tmp_path):
    case = CASES[name]
    network = built(case, torch.float32)
    run = interop.load(case.save(network, tmp_path), **case.options)
    found, expected = ours(case, run, np.float32), theirs(case, network, np.float32)
    assert found.dtype == np.float32
    assert difference(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *(
            (name, changed)
            for name in ("diffusers", "pesser")
            for changed in (
                {"downsample_padding": (1, 1)},
                {"time_embedding": "cos_sin"},
                {"freq_shift": 0},
                {"norm_eps": 1e-5},
                {"num_heads": 2, "num_head_channels": None},
            )
        ),
        *(
            (name, changed)
            for name in ("improved", "abarankab", "SR3")
            for changed in (
                {"downsample_padding": (0, 1)},
                {"time_embedding": "sin_cos" if name == "improved" else "cos_sin"},
                {"freq_shift": 1},
                {"norm_eps": 1e-6},
                {"num_heads": 2},
            )
        ),
    ],
)
def test_every_field_matters(name, changed, tmp_path, x64):
    case = CASES[name]
    network = built(case, torch.float64)
    run = interop.load(case.save(network, tmp_path), **case.options)
    assert difference(ours(case, run, np.float64, **changed), theirs(case, network, np.float64)) > 3e-6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("improved", {"num_heads": 2}),
        ("improved", {"use_new_attention_order": True}),
        ("guided", {"num_head_channels": 32}),
        ("guided", {"use_new_attention_order": False}),
    ],
)
def test_every_option_matters(name, options, tmp_path, x64):
    case = CASES[name]
    network = built(case, torch.float64)
    run = interop.load(case.save(network, tmp_path), **case.options | options)
    assert difference(ours(case, run, np.float64), theirs(case, network, np.float64)) > 1e-3


def test_raw_parameters(tmp_path):
    for name in ("ermongroup", "abarankab"):
        case = CASES[name]
        (tmp_path / name).mkdir()
        path = case.save(built(case, torch.float32), tmp_path / name)
        averaged, raw = (interop.load(path, ema=ema, **case.options).params for ema in (True, False))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a + 1, b, atol=1e-6), averaged, raw)


# The schedule and the sampling of imported networks.


def test_sampling_of_the_published_kinds(tmp_path):
    found = {}
    for name, case in CASES.items():
        if case.size == 8:
            (tmp_path / name).mkdir()
            found[name] = interop.load(case.save(built(case, torch.float32), tmp_path / name), **case.options)
    assert {name: run.with_options(sampler="ddpm").config.sample.variance for name, run in found.items()} == {
        "diffusers": "fixed_large",
        "diffusers, old names": "fixed_small",
        "diffusers, guided": "learned_range",
        "pesser": "fixed_large",
        "ermongroup": "fixed_large",
        "improved": "learned_range",
        "guided": "learned_range",
        "abarankab": "fixed_large",
        "SR3": "fixed_small",
    }
    grid = dj.timesteps.leading(1000, 50)
    for name, run in found.items():
        assert isinstance(run, Run)
        stored = name in ("abarankab", "SR3")
        np.testing.assert_allclose(run.schedule.betas, BETAS, rtol=1e-7 if stored else 1e-14)
        assert run.clip == (None if name == "abarankab" else 1.0)
        assert run.image_shape == (8, 8, 3)
        expected = dj.samplers.ddim(run.schedule, grid)
        jax.tree.map(np.testing.assert_array_equal, run.sampler, expected)
        # The config describes the same network and schedule.
        task = build.task(run.config)
        assert (task.network, task.image_shape) == (run.network, run.image_shape)
        np.testing.assert_array_equal(task.schedule.betas, run.schedule.betas)
    assert found["SR3"].task.is_conditional
    assert found["SR3"].task.level == build.task(found["SR3"].config).level


@pytest.mark.parametrize("name", ["pesser", "improved", "abarankab", "SR3"])
def test_an_unknown_image_size(name, tmp_path):
    case = CASES[name]
    path = case.save(built(case, torch.float32), tmp_path)
    options = {option: value for option, value in case.options.items() if option != "image_size"}
    if name == "pesser":  # DDPM's networks attend at 16×16, which tells the size.
        assert interop.load(path, **options).image_shape == (32, 32, 3)
        return
    with pytest.raises(UserError, match=f"{path.name} does not say the size of its images: give image_size="):
        interop.load(path, **options)


@pytest.mark.parametrize("name", [pytest.param("improved", marks=pytest.mark.slow), "SR3"])
def test_the_predictor_goes_through_the_loop(name, tmp_path):
    case = CASES[name]
    run = interop.load(case.save(built(case, torch.float32), tmp_path), **case.options)
    run = run.with_options(sampler="ddpm", num_steps=3, timestep_spacing="trailing")
    condition = {"label": jnp.array([1, 2])} if case.labels else {}
    condition |= {"image": jnp.zeros((2, 8, 8, 3))} if case.image else {}
    keys = dj.sample_keys(0, 0, 2)
    x = dj.sample(run.sampler, run.predictor(**condition), dj.initial_noise(keys, (8, 8, 3)), keys, clip=run.clip)
    assert x.shape == (2, 8, 8, 3)
    assert np.all(np.isfinite(x))
    if case.image:
        np.testing.assert_allclose(run.restorer()(condition["image"], keys), x, atol=1e-5)
    else:
        made = run.sample(2, seed=0, label=[1, 2])
        np.testing.assert_allclose(made / 127.5 - 1, np.clip(x, -1, 1), atol=0.01)
        assert run.labels(2, [1, 2]).tolist() == [1, 2]


def test_rescaled_timesteps(tmp_path):
    case = CASES["improved"]
    path = case.save(built(case, torch.float32), tmp_path)
    options = SIZE | {"diffusion_steps": 4000, "noise_schedule": "cosine", "num_heads": 4}
    scaled, plain = (interop.load(path, rescale_timesteps=on, **options) for on in (True, False))
    assert (scaled.config.task.timestep_scale, plain.config.task.timestep_scale) == (0.25, 1.0)
    np.testing.assert_allclose(scaled.schedule.betas, dj.schedules.cosine(4000).betas)
    x, label = jnp.asarray(inputs(case, np.float32)[0].transpose(0, 2, 3, 1)), jnp.array(LABELS)
    at, expected = (quickly(run.predictor(label=label), x, jnp.full(4, t)) for run, t in ((scaled, 2000), (plain, 500)))
    np.testing.assert_allclose(at.eps, expected.eps, atol=1e-5)


def test_sr3_samples_on_any_schedule(tmp_path):
    case = CASES["SR3"]
    run = interop.load(case.save(built(case, torch.float32), tmp_path), **case.options)
    short = {"name": "linear", "num_timesteps": 10, "beta_start": 1e-4, "beta_end": 0.5}
    predict = run.with_options(schedule=short, num_steps=10).predictor(image=jnp.zeros((1, 8, 8, 3)))
    x, schedule = jnp.ones((1, 8, 8, 3)), dj.schedules.linear(10, beta_start=1e-4, beta_end=0.5)
    level = jnp.asarray(schedule.sqrt_alpha_bars[7:8], jnp.float32)
    at_level = dj.models.predictor(run.network, run.params, image=jnp.zeros((1, 8, 8, 3)))
    np.testing.assert_allclose(quickly(predict, x, jnp.array([7])), quickly(at_level, x, level), atol=1e-6)


def test_networks_conditioned_on_t_keep_their_schedule(tmp_path):
    case = CASES["diffusers"]
    run = interop.load(case.save(built(case, torch.float32), tmp_path))
    with pytest.raises(UserError, match="sampled on the schedule it was trained on"):
        run.with_options(schedule={"num_timesteps": 10}, num_steps=5)


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 1e-3, "beta_end": 0.01},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid", "num_train_timesteps": 50},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_schedules(config, tmp_path):
    network = unet_2d(norm_num_groups=8, widths=(8, 8), attended=())
    network.save_pretrained(tmp_path)
    scheduler = diffusers.DDPMScheduler(**config)
    scheduler.save_config(tmp_path)
    run = interop.load(tmp_path)
    # Where ᾱ ends at 0, diffusers replaces it by a small number.
    np.testing.assert_allclose(run.schedule.alpha_bars[:-1], scheduler.alphas_cumprod[:-1], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(build.schedule(run.config.schedule).betas, run.schedule.betas)
    assert run.config.train.target == run.task.objective.target == ("v" if "prediction_type" in config else "eps")


@pytest.mark.slow
def test_50_steps_of_ddim_as_in_diffusers(tmp_path):
    """The image of the pipeline and ours agree in float32."""
    case = CASES["diffusers, CIFAR-10"]
    network = randomised(case.build(), 0)
    run = interop.load(case.save(network, tmp_path))
    keys = dj.sample_keys(0, 0, 1)
    x_T = dj.initial_noise(keys, (32, 32, 3))
    x = dj.sample(run.sampler, run.predictor(), x_T, clip=run.clip)
    pipeline = diffusers.DDIMPipeline(network, diffusers.DDPMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.tensor(np.asarray(x_T).transpose(0, 3, 1, 2))
    with mock.patch("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", return_value=noise):
        images = pipeline(use_clipped_model_output=True, output_type="np").images
    expected = images * 2 - 1
    assert np.linalg.norm(x - expected) <= 1e-4 * np.linalg.norm(expected)
    assert expected.std() > 0.1


# Export.


@pytest.mark.parametrize("name", ["diffusers", "diffusers, guided"])
def test_there_and_back_bit_equal(name, tmp_path):
    case = CASES[name]
    network = randomised(case.build(), 3)
    run = interop.load(case.save(network, tmp_path / "theirs"))
    folder = interop.export(tmp_path / "ours", run)
    again = diffusers.UNet2DModel.from_pretrained(folder / "unet")
    expected = network.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    config, scheduler = (
        json.loads((folder / path).read_text()) for path in ("unet/config.json", "scheduler/scheduler_config.json")
    )
    written = {key: value for key, value in config.items() if not key.startswith("_")}
    # The normalisation groups of attention are explicit in what is written.
    assert {key: network.config[key] for key in written if key != "attn_norm_num_groups"} == {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in written.items()
        if key != "attn_norm_num_groups"
    }
    assert scheduler["variance_type"] == run.preferred["variance"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 2, "attention_levels": (0, 1)}, "num_heads=2"),
        ({"activate_embedding": False}, "activate_embedding"),
        ({"num_classes": 3, "class_embedding": "block"}, "class_embedding"),
        ({"middle_attention_groups": 0}, "no middle_attention_groups=0 without use_scale_shift_norm"),
        (
            {"channel_mults": (1, 1, 1), "attention_levels": (0, 1), "resblock_up_levels": (1,)}
            | {"resblock_down_levels": (1,)},
            "no resampling by blocks at some of the levels with attention on the way down",
        ),
        ({"channel_mults": (2, 2)}, "channel_mults=.2, 2., which do not begin with 1"),
        ({"channel_mults": (1, 1, 1, 1, 1)}, "no image size 8×8, which is halved 4 times"),
    ],
)
def test_networks_that_diffusers_has_nothing_for(change, message, tmp_path):
    model = {"base_channels": 8, "channel_mults": (1, 2), "attention_levels": (), "num_groups": 4} | change
    config = resolve.resolve({"data": {"image_shape": (8, 8, 3)}, "model": model})
    task = build.task(config)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), build.params_shape(task))
    with pytest.raises(UserError, match=message):
        interop.export(tmp_path / "out", Run(config, task, params))
    assert not (tmp_path / "out").exists()


def test_networks_with_a_condition_image(tmp_path):
    """The predictor of guided diffusion's upsamplers takes the image; diffusers has no such pipeline."""
    network = randomised(openai.UNetModel(**openai.TINY | {"in_channels": 6}), 0)
    run = interop.load(saved(network.state_dict(), tmp_path, "up.pt"), **OPENAI, num_heads=4)
    x, label = jnp.ones((1, 8, 8, 3)), jnp.array([1])
    assert quickly(run.predictor(label=label, image=x), x, jnp.array([5])).eps.shape == (1, 8, 8, 3)
    with pytest.raises(
        UserError, match=r"this network takes a condition image of 3 channels: .*run.predictor\(image=…\)"
    ):
        run.sample(1)
    with pytest.raises(UserError, match="have no condition image: this network takes 3 channels of it"):
        interop.export(tmp_path / "out", run)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("abarankab", {"num_groups": 7}, "num_groups=7 must divide"),
        ("abarankab", {"ema": "no"}, "ema='no' must be True or False"),
        ("SR3", {"num_groups": 7}, "num_groups=7 must divide"),
        ("SR3", {"norm_groups": 16}, "'norm_groups' is not an option .*: allowed are num_groups"),
        ("SR3", {"schedule": 3}, "schedule=3 must be a schedule"),
        ("improved", {"num_heads": 0}, "num_heads=0 must be a whole number ≥ 1"),
        ("improved", {"num_heads": 3}, "num_heads=3 must divide 64 channels"),
        ("guided", {"num_head_channels": 3}, "num_head_channels=3 must divide (32|64) channels"),
        ("improved", {"noise_schedule": ["linear"]}, "noise_schedule=.'linear'. must be a string"),
        ("improved", {"diffusion_steps": 10}, "diffusion_steps=10 with noise_schedule='linear' is invalid"),
        ("improved", {"rescale_timesteps": "no"}, "rescale_timesteps='no' must be True or False"),
    ],
)
def test_invalid_options_are_named_as_they_were_given(name, options, words, tmp_path):
    case = CASES[name]
    path = case.save(built(case, torch.float32), tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        interop.load(path, **case.options | options)
    assert "config." not in str(caught.value)


# DiT.


@pytest.fixture
def dit(tmp_path):
    """A small transformer of diffusers, and a pipeline's folder with it."""
    config = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "num_embeds_ada_norm": 5}
    network = diffusers.DiTTransformer2DModel(**config, in_channels=3, out_channels=6, sample_size=8)
    network = randomised(network, 0)
    for block in network.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(network.transformer_blocks[0].norm1.emb.state_dict())
    network.save_pretrained(tmp_path / "theirs/transformer")
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    scheduler.save_pretrained(tmp_path / "theirs/scheduler")
    return network, tmp_path / "theirs"


def test_dit_with_a_scheduler_that_has_no_variance_type(dit):
    """As the published pipelines have it."""
    _, folder = dit
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    run = interop.load(folder)
    assert (run.task.variance, run.preferred["variance"]) == ("learned_range", "learned_range")


def test_dit_there_and_back_bit_equal(dit, tmp_path):
    network, folder = dit
    run = interop.load(folder)
    assert (run.config.model.name, run.image_shape, run.clip) == ("dit", (8, 8, 3), None)
    assert build.task(run.config).network == run.network
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    found = quickly(run.predictor(label=jnp.array([1, 4])), jnp.asarray(x), jnp.array([3, 900])).eps
    with torch.no_grad():
        output = network(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor([3, 900]), torch.tensor([1, 4])).sample
    assert difference(np.asarray(found), output[:, :3].permute(0, 2, 3, 1).numpy()) < 1e-4
    # Its labels were dropped at times in training, so it can be guided.
    assert run.with_options(guidance_scale=4.0, num_steps=2).sample(2, label=3).shape == (2, 8, 8, 3)

    ours = interop.export(tmp_path / "ours", run)
    again = diffusers.DiTTransformer2DModel.from_pretrained(ours / "transformer")
    expected = network.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    assert diffusers.DiTPipeline.from_pretrained(ours, vae=None).transformer.config.num_layers == 2
    jax.tree.map(np.testing.assert_array_equal, interop.load(ours).params, run.params)
