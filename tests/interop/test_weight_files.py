"""Files that cannot be imported, and networks that cannot be exported, are refused by name."""

import dataclasses
import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import diffjax as dj
from diffjax import interop
from diffjax.errors import UserError
from diffjax.runs import Run, build, resolve

TINY = {
    "base_channels": 8,
    "channel_mults": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "num_groups": 4,
    "norm_eps": 1e-5,
}


def trained(**sections):
    """A run with random parameters, as a training leaves it."""
    defaults = {
        "data": {"image_shape": (8, 8, 3)},
        "schedule": {"num_timesteps": 100},
        "model": TINY,
    }
    config = resolve.resolve(defaults | sections)
    task, rng = build.task(config), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), build.params_shape(task))
    return Run(config, task, params)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return interop.export(tmp_path_factory.mktemp("exported") / "net", trained())


@pytest.fixture
def folder(tmp_path, exported):
    """A copy of an exported network, to be damaged."""
    return shutil.copytree(exported, tmp_path / "net")


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_reads_what_it_wrote(folder):
    run, before = interop.load(folder), trained()
    assert type(run) is Run
    np.testing.assert_array_equal(run.schedule.betas, dj.schedules.linear(100).betas)
    assert run.sampler.grid.tolist() == before.sampler.grid.tolist() == dj.timesteps.trailing(100, 50).tolist()
    assert (run.clip, run.image_shape) == (1.0, (8, 8, 3))
    assert run.network == before.network.clone(
        attention_levels=(1,), attention_resolutions=(16,), out_channels=3, dropout=0.1
    )
    jax.tree.map(np.testing.assert_array_equal, run.params, before.params)
    images = [net.with_options(num_steps=2).sample(2, seed=3) for net in (run, before)]
    np.testing.assert_array_equal(*images)


def test_the_config_of_an_imported_network_describes_it(folder):
    run = interop.load(folder)
    assert run.config.data.source == "unknown"
    assert (run.config.task.name, run.config.model.name, run.config.train.target) == ("generation", "unet", "eps")
    task = build.task(run.config)
    assert (task.network, task.image_shape, task.variance) == (run.network, run.image_shape, run.task.variance)
    with pytest.raises(UserError, match="images that this network was trained on are not known"):
        build.images(run.config)


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "cosine", "num_timesteps": 60},
        {"name": "quadratic", "zero_terminal_snr": True},
        {"name": "constant", "num_timesteps": 60},
    ],
)
def test_a_schedule_without_a_formula_in_diffusers(schedule, tmp_path):
    run = trained(schedule=schedule, train={"target": "v"})
    again = interop.load(interop.export(tmp_path / "b", run))
    np.testing.assert_array_equal(again.schedule.betas, run.schedule.betas)
    assert (again.config.schedule.name, again.config.train.target) == ("from_betas", "v")
    np.testing.assert_array_equal(build.schedule(again.config.schedule).betas, run.schedule.betas)


@pytest.mark.parametrize(
    ("sections", "written"),
    [
        ({}, "fixed_small"),
        ({"sample": {"sampler": "ddpm", "variance": "fixed_large"}}, "fixed_large"),
        ({"train": {"vlb_weight": 0.001}}, "learned_range"),
    ],
)
def test_the_variance_goes_out_and_in(sections, written, tmp_path):
    folder = interop.export(tmp_path / "net", trained(**sections))
    assert json.loads((folder / "scheduler/scheduler_config.json").read_text())["variance_type"] == written
    run = interop.load(folder)
    assert run.config.sample.sampler == "ddim"
    # It takes effect with the sampler that has a variance, unless another one is given.
    assert run.with_options(sampler="ddpm").config.sample.variance == written
    assert run.with_options(sampler="ddpm", variance="fixed_small").config.sample.variance == "fixed_small"
    assert "variance" not in run.with_options(sampler="plms").config.sample
    assert run.with_options(eta=1.0).config.sample.eta == 1.0
    with pytest.raises(UserError, match="config.sample.sampler: 'ddmp' must be one of 'ddpm'"):
        run.with_options(sampler="ddmp")
    # What is exported again is the same.
    again = interop.export(tmp_path / "again", run)
    for name in ("scheduler/scheduler_config.json", "unet/config.json", "model_index.json"):
        assert (again / name).read_text() == (folder / name).read_text()


@pytest.mark.parametrize(
    ("fields", "clip"),
    [
        ({"clip_sample": False}, None),
        ({"clip_sample_range": 2.0}, 2.0),
        ({"thresholding": True}, 1.0),
    ],
)
def test_clipping(fields, clip, folder):
    change(folder / "scheduler/scheduler_config.json", **fields)
    assert interop.load(folder).clip == clip


def test_dynamic_thresholding(folder, tmp_path):
    scheduler = folder / "scheduler/scheduler_config.json"
    change(scheduler, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5)
    run = interop.load(folder)
    assert (run.clip.func, run.clip.args) == (dj.thresholds.dynamic().func, (0.9, 1.0, 1.5))
    written = json.loads((interop.export(tmp_path / "out", run) / "scheduler/scheduler_config.json").read_text())
    fields = ("thresholding", "dynamic_thresholding_ratio", "sample_max_value")
    assert [written[field] for field in fields] == [True, 0.9, 1.5]
    assert interop.load(tmp_path / "out").config.sample == run.config.sample


def test_dynamic_thresholding_without_a_largest_s(tmp_path):
    run = trained(sample={"clip": "dynamic", "percentile": 0.9})
    again = interop.load(interop.export(tmp_path / "net", run))
    assert again.clip.args == run.clip.args == (0.9, 1.0, np.inf)


def test_a_folder_that_does_not_say_its_size(folder):
    change(folder / "unet/config.json", sample_size=None)
    with pytest.raises(UserError, match="does not say the size of its images: give image_size="):
        interop.load(folder)
    assert interop.load(folder, image_size=16).image_shape == (16, 16, 3)
    assert interop.load(folder, image_size=(8, 16)).image_shape == (8, 16, 3)
    for size in (0, 8.0, "8", (8, 8, 3), True, 10**6):
        with pytest.raises(UserError, match=r"image_size=.* must be a whole number within 1 … 16384"):
            interop.load(folder, image_size=size)


def test_leading_grid_as_diffusers_has_it(folder):
    scheduler = folder / "scheduler/scheduler_config.json"
    change(scheduler, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=True)
    run = interop.load(folder)
    assert run.with_options(num_steps=10).sampler.grid.tolist() == [*range(91, 0, -10), -1]
    # Another spacing has no offset.
    assert run.with_options(timestep_spacing="trailing").config.sample.get("offset") is None


@pytest.mark.parametrize(("offset", "starts"), [(0, range(900, -1, -100)), (1, range(901, 0, -100))])
def test_the_last_step_to_index_0(offset, starts, folder, tmp_path):
    """As in Stable Diffusion's configs; from index 0, it still calls the network."""
    scheduler = folder / "scheduler/scheduler_config.json"
    change(scheduler, num_train_timesteps=1000, timestep_spacing="leading", steps_offset=offset, set_alpha_to_one=False)
    run = interop.load(folder).with_options(num_steps=10)
    assert run.sampler.t_net.tolist() == list(starts)
    assert run.sampler.t_to.tolist() == [*starts[1:], 0]
    # DDPMScheduler has no such field: it ends at clean data.
    ddpm = run.with_options(sampler="ddpm")
    assert ddpm.sampler.grid.tolist() == [*starts, -1]
    for other in (run, ddpm, ddpm.with_options(sampler="ddim")):
        folder = interop.export(tmp_path / str(len(list(tmp_path.iterdir()))), other)
        written = json.loads((folder / "scheduler/scheduler_config.json").read_text())
        assert (written["steps_offset"], written["set_alpha_to_one"]) == (offset, False)
        assert interop.load(folder).with_options(num_steps=10).config.sample == run.config.sample
    with pytest.raises(UserError, match="config.sample.stride_end: 0 needs equal steps.*None allows others"):
        run.with_options(timestep_spacing="quadratic")
    run.with_options(timestep_spacing="quadratic", stride_end=None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}, "block 'CrossAttnDownBlock2D' .can be"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "block 'SkipDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "attention at other levels"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type='UNetMidBlock2DCrossAttn' .can be"),
        ({"act_fn": "elu"}, "act_fn='elu'"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"addition_embed_type": "text"}, "addition_embed_type='text' .unknown."),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial'"),
        ({"_class_name": "UNet2DConditionModel"}, "is a UNet2DConditionModel: only"),
        ({"out_channels": 0}, "out_channels=0 must be a whole number ≥ 1"),
        ({"act_fn": "elu", "class_embed_type": "projection"}, "act_fn='elu'.*class_embed_type='projection'"),
        ({"norm_num_groups": 3}, "norm_num_groups=3 must divide block_out_channels.0.=8"),
        ({"attention_head_dim": 17}, "attention_head_dim=17 must be at most 16 channels"),
        ({"layers_per_block": 0}, "layers_per_block=0 must be a whole number ≥ 1"),
        ({"block_out_channels": [0, 0]}, "block_out_channels=.0, 0. must be a list of whole numbers ≥ 1"),
        ({"down_block_types": 3}, "down_block_types=3 must be a list of names"),
        ({"flip_sin_to_cos": "no"}, "flip_sin_to_cos='no' must be true or false"),
        ({"sample_size": "8"}, "sample_size='8' must be a whole number, or two of them"),
    ],
)
def test_a_config_that_the_unet_has_no_fields_for(fields, words, folder):
    change(folder / "unet/config.json", attn_norm_num_groups=None, **fields)
    with pytest.raises(UserError, match=words):
        interop.load(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beta_schedule": "exp"}, "beta_schedule='exp' is not one of 'linear'"),
        ({"_class_name": "LCMScheduler"}, "LCMScheduler"),
        ({"variance_type": "fixed_large_log"}, "variance_type='fixed_large_log'"),
        ({"beta_end": 2.0}, "beta_end=2.0"),
        (
            {"variance_type": "learned_range"},
            "in_channels=3 and out_channels=3 does not go with variance_type 'learned_range'",
        ),
    ],
)
def test_unknown_schedulers(fields, words, folder):
    change(folder / "scheduler/scheduler_config.json", **fields)
    with pytest.raises(UserError, match=words):
        interop.load(folder)


def test_every_tensor_that_does_not_fit_is_named(folder):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_in.weight"]
    state["extra.weight"] = np.zeros(3, np.float32)
    state["conv_out.bias"] = np.zeros(4, np.float32)
    save_file(state, path)
    with pytest.raises(UserError) as caught:
        interop.load(folder)
    message = str(caught.value)
    assert "missing: conv_in.weight" in message
    assert "left over: extra.weight" in message
    assert "of the wrong shape: conv_out.bias is [4], must be [3]" in message


def test_damaged_files(folder, tmp_path):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cannot read .*safetensors"):
            interop.load(folder)
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        interop.load(folder)
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config.json"):
        interop.load(folder)
    with pytest.raises(UserError, match="does not exist"):
        interop.load(tmp_path / "nowhere.pt")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 35742\n"
WEIGHTS = "unet/diffusion_pytorch_model"


@pytest.mark.parametrize("name", [f"{WEIGHTS}.safetensors", f"{WEIGHTS}.bin", "model.pth"])
def test_a_git_lfs_pointer(name, folder):
    (folder / f"{WEIGHTS}.safetensors").unlink()
    (folder / name).write_text(LFS)
    with pytest.raises(UserError, match=f"{name} is a git-LFS pointer .*: run `git lfs pull`"):
        interop.load(folder / name if name == "model.pth" else folder)


def shards(folder, index="diffusion_pytorch_model.safetensors.index.json"):
    """Cuts the weights of a folder in two, as diffusers does with large ones, and returns their index."""
    path = folder / f"{WEIGHTS}.safetensors"
    state = load_file(path)
    path.unlink()
    places = {}
    for number in (1, 2):
        name = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        part = {key: state[key] for key in sorted(state)[number - 1 :: 2]}
        save_file(part, folder / "unet" / name)
        places |= dict.fromkeys(part, name)
    (folder / "unet" / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / "unet" / index


def test_sharded_weights(folder):
    before = interop.load(folder).params
    index = shards(folder)
    jax.tree.map(np.testing.assert_array_equal, interop.load(folder).params, before)
    places = json.loads(index.read_text())["weight_map"]
    change(index, weight_map={**places, "more.weight": places["conv_in.bias"]})
    with pytest.raises(UserError, match="index.json lists tensors that the shards lack: more.weight"):
        interop.load(folder)
    for wrong in ([], {"conv_in.bias": 3}, {"conv_in.bias": "../config.json"}):
        change(index, weight_map=wrong)
        with pytest.raises(UserError, match="cannot read .*index.json: its weight_map must map"):
            interop.load(folder)
    change(index, weight_map=places)
    (folder / "unet" / places["conv_in.bias"]).unlink()
    with pytest.raises(UserError, match=f"{places['conv_in.bias']} does not exist"):
        interop.load(folder)


def test_weights_of_half_precision(folder):
    path = folder / f"{WEIGHTS}.safetensors"
    state = load_file(path)
    path.unlink()
    save_file({key: tensor.astype(np.float16) for key, tensor in state.items()}, folder / f"{WEIGHTS}.fp16.safetensors")
    found = interop.load(folder).params["conv_in"]["bias"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, state["conv_in.bias"].astype(np.float16))
    # The file of full precision is preferred.
    save_file(state, path)
    np.testing.assert_array_equal(interop.load(folder).params["conv_in"]["bias"], state["conv_in.bias"])


def test_a_folder_with_other_weights(folder):
    (folder / f"{WEIGHTS}.safetensors").rename(folder / "unet/flax_model.msgpack")
    with pytest.raises(
        UserError, match=r"does not exist \(the folder holds config.json, flax_model.msgpack\): load .*"
    ):
        interop.load(folder)


class TestPyTorchFiles:
    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")

    def test_code_is_refused_and_not_run(self, tmp_path):
        class Malice:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        self.torch.save({"temb.dense.0.weight": Malice()}, tmp_path / "net.ckpt")
        with pytest.raises(UserError, match="is refused: it holds more than tensors"):
            interop.load(tmp_path / "net.ckpt")
        assert not (tmp_path / "ran").exists()

    def test_damaged(self, tmp_path):
        path = tmp_path / "net.pt"
        self.torch.save({"time_embed.0.weight": self.torch.zeros(100, 100)}, path)
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
            path.write_bytes(content)
            with pytest.raises(UserError, match="net.pt"):
                interop.load(path)

    @pytest.mark.parametrize(
        ("saved", "options", "words"),
        [
            ({"weight": 0}, {}, "holds no network of"),
            ([1, 2], {}, "holds no network of"),
            ({"temb.dense.0.weight": "text"}, {}, "holds values that are not tensors: temb.dense.0.weight"),
            ({"temb.dense.0.weight": (8, 8)}, {}, "lacks 'conv_out.bias'"),
            ({"time_embed.0.weight": (8, 8)}, {}, "give diffusion_steps .is None. and noise_schedule"),
            ({"time_embed.0.weight": (8, 8)}, {"heads": 4}, "'heads' is not an option .*: allowed are diffusion_steps"),
            ({"temb.dense.0.weight": (8, 8)}, {"variance": "small"}, "variance='small' is not one of 'fixed_small'"),
            ([{"temb.dense.0.weight": (8, 8)}, {}], {}, "holds no EMA parameters"),
            ([], {}, "holds no network of"),
        ],
    )
    def test_files_of_something_else(self, saved, options, words, tmp_path):
        def tensors(value):
            if isinstance(value, dict):
                return {key: tensors(item) for key, item in value.items()}
            return self.torch.zeros(value) if isinstance(value, tuple) else value

        self.torch.save([*map(tensors, saved)] if isinstance(saved, list) else tensors(saved), tmp_path / "a.pt")
        with pytest.raises(UserError, match=words):
            interop.load(tmp_path / "a.pt", **options)


def test_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(UserError, match="install PyTorch to read it"):
        interop.load(tmp_path / "net.pt")


def test_a_variance_that_diffusers_reads_otherwise(tmp_path):
    run = trained(train={"vlb_weight": 0.001})
    run = dataclasses.replace(run, task=dataclasses.replace(run.task, variance="learned"))
    with pytest.raises(UserError, match="no variance='learned', which is log σ²"):
        interop.export(tmp_path / "x", run)


def test_export_keeps_what_is_there(folder):
    run = interop.load(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="exists already and is not empty"):
        interop.export(folder, run)
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"sample": {"timestep_spacing": "quadratic"}}, "no timestep_spacing='quadratic'"),
        ({"sample": {"clip": "dynamic", "limit": 2.0}}, "no clip='dynamic' with limit=2.0"),
        ({"sample": {"clip": "clip"}}, "no clip='clip'"),
        ({"sample": {"end": 0}}, "no timestep spacing with end=0"),
        ({"task": {"timestep_scale": 0.5}}, "no timestep_scale=0.5"),
        ({"train": {"target": "flow"}}, "no target='flow'"),
        ({"task": {"timestep_scale": 2.0}, "sample": {"clip": "clip"}}, "no timestep_scale=2.0, no clip='clip'"),
        ({"task": {"name": "super_resolution"}}, "have no SuperResolution"),
    ],
)
def test_runs_that_diffusers_has_nothing_for(sections, words, tmp_path):
    with pytest.raises(UserError, match=words):
        interop.export(tmp_path / "x", trained(**sections))
    assert not (tmp_path / "x").exists()
