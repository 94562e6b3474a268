"""Weights out to diffusers and in again, by the command lines."""

import importlib
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from torch_reference.unets import abarankab, openai, randomised, sr3  # noqa: E402

import diffjax as dj  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch, command):
    """What sample.py would sample from, and with: a function of its flags."""

    def source(*arguments):
        module = importlib.import_module("sample")
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr(module, "run", seen.append)
            command("sample", *arguments)
        (args,) = seen
        return (module.from_workdir if args.workdir else module.from_weights)(args)

    return source


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "net"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "experiments")
        patch.setattr("sys.argv", ["export.py", "--workdir", str(workdir), "--out", str(folder)])
        importlib.import_module("export").main()
    return folder


def noises(keys, rows, shape):
    """x_T, then what each row draws, as diffusers' `randn_tensor` is to give them."""
    draws = [dj.initial_noise(keys, shape)]
    draws += [
        jax.vmap(lambda key, row=row: jax.random.normal(jax.random.fold_in(key, row), shape))(keys)
        for row in range(rows)
    ]
    return [torch.tensor(np.asarray(z).transpose(0, 3, 1, 2)) for z in draws]


def piped(pipeline, draws, **options):
    """A pipeline's images in [0, 1], with the given noise."""
    modules = [
        "diffusers.pipelines.ddpm.pipeline_ddpm",
        "diffusers.pipelines.ddim.pipeline_ddim",
        "diffusers.schedulers.scheduling_ddpm",
        "diffusers.schedulers.scheduling_ddim",
    ]
    pipeline.set_progress_bar_config(disable=True)
    draw = mock.Mock(side_effect=draws)
    patches = [mock.patch(f"{module}.randn_tensor", draw) for module in modules]
    for patch in patches:
        patch.start()
    try:
        return pipeline(batch_size=len(draws[0]), output_type="np", **options).images
    finally:
        for patch in patches:
            patch.stop()


@pytest.mark.parametrize(
    ("kind", "flags", "options"),
    [
        ("DDPMPipeline", ("--sampler", "ddpm", "--steps", 20), {"num_inference_steps": 20}),
        ("DDIMPipeline", ("--steps", 5), {"num_inference_steps": 5, "use_clipped_model_output": True}),
        ("DDIMPipeline", ("--eta", 0.5, "--steps", 20), {"num_inference_steps": 20, "eta": 0.5, "use_clipped_model_output": True}),
    ],
)  # fmt: skip
def test_pipelines_draw_what_sample_draws(kind, flags, options, workdir, exported, asked):
    source = asked("--workdir", workdir, *flags)
    numbers, shape = np.arange(3), source.shape
    keys = dj.sample_keys(0, 0, 3)
    x = dj.sample(source.steps, source.predict(numbers), dj.initial_noise(keys, shape), keys, clip=source.clip)
    expected = np.clip(np.asarray(x) / 2 + 0.5, 0, 1)
    pipeline = getattr(diffusers, kind).from_pretrained(exported)
    found = piped(pipeline, noises(keys, source.steps.num_rows, shape), **options)
    assert np.max(np.abs(found - expected)) < 1e-3
    # And here, from the exported folder.
    again = asked("--weights", exported, *flags)
    x_again = dj.sample(again.steps, again.predict(numbers), dj.initial_noise(keys, shape), keys, clip=again.clip)
    np.testing.assert_array_equal(x_again, x)


def test_export_takes_the_ema_or_not(workdir, exported, tmp_path, command):
    command("export", "--workdir", workdir, "--out", tmp_path / "raw", "--raw")
    nets = [dj.interop.load(folder) for folder in (exported, tmp_path / "raw")]
    ema, raw = (net.params["conv_in"]["kernel"] for net in nets)
    assert not np.array_equal(ema, raw)
    assert nets[0].model == nets[1].model
    with pytest.raises(SystemExit, match="is not empty"):
        command("export", "--workdir", workdir, "--out", tmp_path / "raw")


def save(network, path):
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["classes", "openai", "sr3"])
def test_sample_from_files(kind, tmp_path, command):
    flags = ["--image-size", 8, "--num", 3, "--steps", 2, "--out", tmp_path / "out"]
    if kind == "classes":
        network = abarankab.GaussianDiffusion(abarankab.UNet(**abarankab.TINY), np.linspace(1e-4, 0.02, 10))
        flags += ["--label", 3]
    elif kind == "openai":
        network = openai.UNetModel(**openai.TINY)
        for option in ("num_heads=4", "diffusion_steps=10", "noise_schedule=cosine", "rescale_timesteps=False"):
            flags += ["--option", option]
        flags += ["--sampler", "ddpm"]
    else:
        network = sr3.GaussianDiffusion(sr3.UNet(**sr3.TINY), np.linspace(1e-4, 0.02, 10))
        Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(tmp_path / "low.png")
        flags += ["--image", tmp_path / "low.png"]
    command("sample", "--weights", save(randomised(network, 0), tmp_path / "net.pth"), *flags)
    images = np.load(tmp_path / "out" / "samples.npz")["arr_0"]
    assert images.shape == (3, 8, 8, 3)
    assert images.std() > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", 21], "config.sample.steps: num_steps=21"),
        (["--label", 1], "--label=1: this network has no classes"),
        (["--image", "x.png"], "--image: this network takes no condition image"),
        (["--option", "num_heads=4"], "'num_heads' is no option for .*: there is none"),
        (["--option", "num_heads"], "--option num_heads: must be NAME=VALUE"),
        (["--image-size", 0], "--image-size=0 must be ≥ 1"),
    ],
)
def test_bad_flags(flags, words, exported, tmp_path, command):
    with pytest.raises(SystemExit, match=words):
        command("sample", "--weights", exported, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_exported_config_is_what_diffusers_writes(exported):
    network = diffusers.UNet2DModel.from_pretrained(exported / "unet")
    written = json.loads((exported / "unet" / "config.json").read_text())
    assert {key: network.config[key] for key in written if not key.startswith("_")} == {
        key: value for key, value in written.items() if not key.startswith("_")
    }
