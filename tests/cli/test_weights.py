"""Weights out to diffusers and in again, by the command lines."""

import json
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

import diffjax as dj  # noqa: E402
from diffjax.cli import launch, main  # noqa: E402
from torch_reference.unets import abarankab, openai, randomised, sr3  # noqa: E402


@pytest.fixture
def run_of(monkeypatch, command, tmp_path):
    """A function: flags of `diffjax sample` → the `Run` that it samples from."""

    class StopError(Exception):
        pass

    def run_of(*arguments):
        seen = []

        def batches(run, *args, **options):
            seen.append(run)
            raise StopError

        with monkeypatch.context() as patch:
            patch.setattr(dj.runs.Run, "batches", batches)
            with pytest.raises(StopError):
                command("sample", "--out", tmp_path / str(len(list(tmp_path.iterdir()))), *arguments)
        return seen[0]

    return run_of


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "net"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "start", lambda **_: None)
        assert main.command("export", ["--workdir", str(workdir), "--out", str(folder)]) == 0
    return folder


def noises(keys, rows, shape):
    """x_T, then the noise of each row, as diffusers' `randn_tensor` is to return them."""
    arrays = [dj.initial_noise(keys, shape)]
    arrays += [
        jax.vmap(lambda key, row=row: jax.random.normal(jax.random.fold_in(key, row), shape))(keys)
        for row in range(rows)
    ]
    return [torch.tensor(np.asarray(z).transpose(0, 3, 1, 2)) for z in arrays]


def piped(pipeline, arrays, **options):
    """A pipeline's images in [0, 1], with the given noise."""
    modules = [
        "diffusers.pipelines.ddpm.pipeline_ddpm",
        "diffusers.pipelines.ddim.pipeline_ddim",
        "diffusers.schedulers.scheduling_ddpm",
        "diffusers.schedulers.scheduling_ddim",
    ]
    pipeline.set_progress_bar_config(disable=True)
    randn = mock.Mock(side_effect=arrays)
    patches = [mock.patch(f"{module}.randn_tensor", randn) for module in modules]
    for patch in patches:
        patch.start()
    try:
        return pipeline(batch_size=len(arrays[0]), output_type="np", **options).images
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
def test_pipelines_sample_what_sample_samples(kind, flags, options, workdir, exported, run_of):
    run = run_of("--workdir", workdir, *flags)
    keys, shape = dj.sample_keys(0, 0, 3), run.image_shape
    x = dj.sample(run.sampler, run.predictor(), dj.initial_noise(keys, shape), keys, clip=run.clip)
    expected = np.clip(np.asarray(x) / 2 + 0.5, 0, 1)
    pipeline = getattr(diffusers, kind).from_pretrained(exported)
    found = piped(pipeline, noises(keys, run.sampler.num_rows, shape), **options)
    assert np.max(np.abs(found - expected)) < 1e-3
    # And here, from the exported folder.
    again = run_of("--weights", exported, *flags)
    x_again = dj.sample(again.sampler, again.predictor(), dj.initial_noise(keys, shape), keys, clip=again.clip)
    np.testing.assert_array_equal(x_again, x)


def test_export_takes_the_ema_or_not(workdir, exported, tmp_path, command):
    command("export", "--workdir", workdir, "--out", tmp_path / "raw", "--raw")
    nets = [dj.interop.load(folder) for folder in (exported, tmp_path / "raw")]
    ema, raw = (net.params["conv_in"]["kernel"] for net in nets)
    assert not np.array_equal(ema, raw)
    assert nets[0].network == nets[1].network
    with pytest.raises(SystemExit, match="is not empty"):
        command("export", "--workdir", workdir, "--out", tmp_path / "raw")


def test_another_sampler_keeps_the_options_of_the_folder(exported, run_of, tmp_path):
    """Those that the network's authors prefer, unless a flag sets them."""
    folder = shutil.copytree(exported, tmp_path / "net")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"variance_type": "fixed_large"}))
    for flags in (("--sampler", "ddpm"), ("--sample", "sampler=ddpm")):
        assert run_of("--weights", folder, "--steps", 5, *flags).config.sample.variance == "fixed_large"
    run = run_of("--weights", folder, "--steps", 5, "--sampler", "ddpm", "--sample", "variance=fixed_small")
    assert run.config.sample.variance == "fixed_small"


def test_a_sampler_with_an_option_that_must_be_given(exported, run_of, tmp_path):
    run, path = dj.interop.load(exported), tmp_path / "table.json"
    table = run.with_options(sampler="ddim", num_steps=5, eta=0.5).sampler
    dj.samplers.save_table(path, table)
    found = run_of("--weights", exported, "--sampler", "learned", "--steps", 5, "--sample", f"path={path}").sampler
    np.testing.assert_allclose(found.d, table.d, rtol=1e-12)


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
        flags += ["--option", "num_heads=4,diffusion_steps=10", "--option", "noise_schedule=cosine"]
        flags += ["--option", "rescale_timesteps=False", "--sampler", "ddpm"]
    else:
        network = sr3.GaussianDiffusion(sr3.UNet(**sr3.TINY), np.linspace(1e-4, 0.02, 10))
        Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(tmp_path / "low.png")
        flags += ["--image", tmp_path / "low.png"]
    command("sample", "--weights", save(randomised(network, 0), tmp_path / "net.pth"), *flags)
    images = np.load(tmp_path / "out" / "samples.npz")["arr_0"]
    assert images.shape == (3, 8, 8, 3)
    assert images.std() > 0


def test_unreadable_condition_images(tmp_path, command):
    network = sr3.GaussianDiffusion(sr3.UNet(**sr3.TINY), np.linspace(1e-4, 0.02, 10))
    weights, path = save(network, tmp_path / "net.pth"), tmp_path / "low.png"
    for content, words in ((b"<html>", "it is a web page"), (b"\x89PNG\r\n\x1a\n", "it is damaged")):
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=f"^error: --image: cannot read {path}: {words}"):
            command("sample", "--weights", weights, "--image-size", 8, "--image", path, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", 21], "config.sample.num_steps: 21 .*1 … 20"),
        (["--label", 1], "label=1: this network has no classes"),
        (["--image", "x.png"], "--image: this network takes no condition image"),
        (["--ema", 0.5], "--ema goes with --workdir"),
        (["--option", "num_heads=4"], "'num_heads' is .*option"),
        (["--option", "num_heads"], "--option num_heads: 'num_heads' must be FIELD=VALUE"),
    ],
)
def test_bad_flags(flags, words, exported, tmp_path, command):
    with pytest.raises(SystemExit, match=words):
        command("sample", "--weights", exported, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_bad_image_size(exported, tmp_path, command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("sample", "--weights", exported, "--out", tmp_path / "out", "--image-size", 0)
    assert "argument --image-size: 0 must be ≥ 1" in capsys.readouterr().err


def test_exported_config_is_what_diffusers_writes(exported):
    network = diffusers.UNet2DModel.from_pretrained(exported / "unet")
    written = json.loads((exported / "unet" / "config.json").read_text())
    assert {key: network.config[key] for key in written if not key.startswith("_")} == {
        key: value for key, value in written.items() if not key.startswith("_")
    }
