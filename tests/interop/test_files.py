"""What cannot be imported is refused, in words that name it."""

import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import diffjax as dj
from diffjax import interop
from diffjax.errors import UserError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = dj.models.UNet(
        channels=8, multipliers=(1, 2), num_res_blocks=1, attention_levels=(1,), groups=4, norm_eps=1e-5
    )
    rng = np.random.default_rng(0)
    shapes = interop.mapping.param_shapes(model, 3)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    folder = tmp_path_factory.mktemp("exported") / "net"
    return interop.export(folder, model, params, dj.schedules.linear(100), image_size=(8, 8))


@pytest.fixture
def folder(tmp_path, exported):
    """An exported network, to be spoiled."""
    return shutil.copytree(exported, tmp_path / "net")


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_reads_what_it_wrote(folder):
    net = interop.load(folder)
    np.testing.assert_array_equal(net.schedule.betas, dj.schedules.linear(100).betas)
    assert net.settings == interop.Settings(grid="trailing")
    assert net.grid(10).tolist() == dj.timesteps.trailing(100, 10).tolist()
    assert net.image_size == (8, 8)


def test_a_schedule_of_no_formula(tmp_path, folder):
    net = interop.load(folder)
    schedule = dj.schedules.cosine(50)
    again = interop.load(interop.export(tmp_path / "b", net.model, net.params, schedule, image_size=(8, 8)))
    np.testing.assert_array_equal(again.schedule.betas, schedule.betas)


def test_leading_grid_as_diffusers_has_it(folder):
    change(
        folder / "scheduler/scheduler_config.json", timestep_spacing="leading", steps_offset=1, set_alpha_to_one=True
    )
    assert interop.load(folder).grid(10).tolist() == [*range(91, 0, -10), -1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}, "block 'CrossAttnDownBlock2D' .can be"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "block 'SkipDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "attention at other levels"),
        ({"mid_block_type": None}, "mid_block_type=None .can be 'UNetMidBlock2D'."),
        ({"act_fn": "gelu"}, "act_fn='gelu'"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"addition_embed_type": "text"}, "addition_embed_type='text' .unknown."),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups=None"),
        ({"_class_name": "UNet2DConditionModel"}, "is a UNet2DConditionModel: only"),
        ({"out_channels": 4}, "out_channels=4"),
        ({"act_fn": "gelu", "mid_block_type": None}, "mid_block_type=None.*act_fn='gelu'"),
    ],
)
def test_a_config_for_what_this_unet_lacks(fields, words, folder):
    change(folder / "unet/config.json", attn_norm_num_groups=None, **fields)
    with pytest.raises(UserError, match=words):
        interop.load(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beta_schedule": "laplace"}, "beta_schedule='laplace' is not one of 'linear'"),
        ({"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ({"variance_type": "fixed_large_log"}, "variance_type='fixed_large_log'"),
        ({"beta_end": 2.0}, "beta_end=2.0"),
        ({"variance_type": "learned_range"}, "3 channels for images of 3"),
    ],
)
def test_a_scheduler_that_is_none_of_ours(fields, words, folder):
    change(folder / "scheduler/scheduler_config.json", **fields)
    with pytest.raises(UserError, match=words):
        interop.load(folder)


def test_every_tensor_that_does_not_fit_is_named(folder):
    from safetensors.numpy import load_file

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
    with pytest.raises(UserError, match="is not there"):
        interop.load(folder)
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config.json"):
        interop.load(folder)
    with pytest.raises(UserError, match="is not there"):
        interop.load(tmp_path / "nowhere.pt")


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
            ({"temb.dense.0.weight": "text"}, {}, "holds what is no tensor: temb.dense.0.weight"),
            ({"temb.dense.0.weight": (8, 8)}, {}, "lacks 'conv_out.bias'"),
            ({"time_embed.0.weight": (8, 8)}, {}, "give diffusion_steps .is None. and noise_schedule"),
            ({"time_embed.0.weight": (8, 8)}, {"heads": 4}, "'heads' is no option .*: allowed are diffusion_steps"),
            ([{"temb.dense.0.weight": (8, 8)}, {}], {}, "holds no EMA parameters"),
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


def test_export_keeps_what_is_there(folder):
    net = interop.load(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="is there already and is not empty"):
        interop.export(folder, net.model, net.params, net.schedule, image_size=(8, 8))
    assert all(path.read_bytes() == content for path, content in before.items())
    settings = interop.Settings(grid="quadratic")
    with pytest.raises(UserError, match="grid='quadratic'"):
        interop.export(folder / "x", net.model, net.params, net.schedule, image_size=(8, 8), settings=settings)
