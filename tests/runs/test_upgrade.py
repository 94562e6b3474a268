"""Configs and workdirs of before the schema: their fields have today's names when they are read.

`data/configs_before_schema.json` holds what `get_config()` of each config returned then (the digits' whole, of the others
what they set apart from it); `data/workdir_before_schema.zip` a run of the digits by class on a tiny network, cut back to
its step 6, with the EMA parameters of step 12 and guided samples of them as `expected.npz`.
"""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from diffjax import runs
from diffjax.errors import UserError
from diffjax.runs import build, config_files, resolve, saved
from diffjax.runs.train import train
from diffjax.runs.upgrade import RENAMED, upgrade

DATA = Path(__file__).parent / "data"
BEFORE = json.loads((DATA / "configs_before_schema.json").read_text())


def merged(a, b):
    both = dict(a)
    for name, value in b.items():
        both[name] = merged(both[name], value) if isinstance(value, dict) and name in both else value
    return both


@pytest.mark.parametrize("name", BEFORE)
def test_every_config_of_then_is_the_config_of_now(name):
    before = BEFORE["digits"] if name == "digits" else merged(BEFORE["digits"], BEFORE[name])
    then = resolve.flatten(resolve.resolve(upgrade(before)))
    now = resolve.flatten(resolve.resolve(config_files.load(name)))
    if not now["data.degradation.kinds"]:  # then the ranges mean nothing
        then, now = ({k: v for k, v in c.items() if "degradation" not in k} for c in (then, now))
    assert then == now


def test_todays_configs_stay_as_they_are():
    config = resolve.to_dict(resolve.resolve(config_files.load("sr3_fashion_mnist")))
    assert upgrade(config) == config
    assert not set(RENAMED) & set(resolve.flatten(config))


def test_an_option_with_an_old_name_is_left_alone():
    """A network of one's own may have a field `channels`, which was once the UNet's."""
    config = resolve.to_dict(resolve.resolve(config_files.load("digits")))
    config["model"] = {"name": "my_lab:Net", "channels": 8}
    assert upgrade(config) == config


@pytest.mark.parametrize("named", [True, False], ids=["since the schema", "before the schema"])
def test_a_workdir_of_rounded_karras_steps_is_sampled_as_it_was(named, tmp_path):
    config = merged(BEFORE["digits"], {"sample": {"grid": "karras", "steps": 7}})
    if named:
        config = resolve.to_dict(resolve.resolve({"sample": {"timestep_spacing": "karras", "num_steps": 7}}))
        del config["sample"]["rounded"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = saved.load(tmp_path)
    assert loaded.sample.rounded is True
    grid = build.grid(loaded.sample, build.schedule(loaded.schedule))
    assert grid.dtype == np.int32
    assert grid.tolist() == [999, 902, 775, 593, 301, 47, 0, -1]  # that of the version that only rounded
    # A config of today has the field, and stays as it is.
    today = resolve.to_dict(resolve.override(loaded, {"sample.rounded": False}))
    assert upgrade(today) == today


def test_old_generation_configs_lose_the_conditioning_of_other_tasks():
    config = upgrade(merged(BEFORE["digits"], {"task": {"told": "sqrt_alpha_bar"}}))
    assert resolve.resolve(config).task.noise_conditioning == "t"


@pytest.fixture
def workdir(tmp_path):
    with zipfile.ZipFile(DATA / "workdir_before_schema.zip") as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_a_workdir_of_then_is_sampled_and_resumed(workdir):
    expected = np.load(workdir / "expected.npz")
    run = runs.load(workdir)
    assert (run.step, run.ema, run.task.num_classes) == (6, 0.995, 10)
    assert (run.config.sample.guidance_scale, run.config.sample.num_steps) == (2.0, 5)
    assert run.sample(4).shape == (4, 8, 8, 1)

    config = saved.load(workdir)
    state = train(resolve.override(config, {"train.final_pictures": False}), workdir, progress=False)
    assert int(state.step) == 12
    resumed = runs.load(workdir)
    leaves, _ = jax.tree.flatten_with_path(resumed.params)
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        # Then on two devices, here on eight; the gradient of a key's bias is rounding, which Adam scales up.
        if not name.endswith("k/bias"):
            np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=2e-5, err_msg=name)
    images = resumed.sample(16, batch_size=16).astype(int)
    assert np.max(np.abs(images - expected["images"])) <= 1


def test_what_is_learned_cannot_change(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "copy")
    config = resolve.override(saved.load(workdir), {"optimizer.learning_rate": 1.0})
    with pytest.raises(Exception, match=r"config.optimizer.learning_rate is 1.0 but was 0.002"):
        train(config, tmp_path / "copy", progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"name": "gen"}}, r"config.task.name: 'gen' must be one of 'deblurring'"),
        ({"task": {"name": ["x"]}}, r"config.task.name: \['x'\] must be one of"),
        ({"task": "x"}, "config.task: 'x' must be a section"),
        ({"model": 3}, "config.model: 3 must be a section"),
        ({"sample": [3]}, r"config.sample: \[3\] must be a section"),
        ({"imports": 5}, "config.imports: 5 must be a tuple of strings"),
        ({"imports": [5]}, r"config.imports: \[5\] must be a tuple of strings"),
    ],
)
def test_a_damaged_config_of_then_gets_one_line(workdir, changes, message):
    file = workdir / "config.json"
    path_before = list(sys.path)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=rf"config.json: {message}"):
        saved.load(workdir)
    assert sys.path == path_before


def test_a_task_without_a_name_was_generation(workdir):
    config = json.loads((workdir / "config.json").read_text())
    assert upgrade(config | {"task": {"name": None}})["task"] == {"name": "generation"}
