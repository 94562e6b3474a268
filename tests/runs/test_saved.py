"""The config that a workdir keeps."""

import json

import pytest

from diffjax.errors import UserError
from diffjax.runs import resolve, saved

GUIDED = {"model__num_classes": 10, "train__label_dropout": 0.1}


def test_a_config_comes_back_from_the_workdir(tiny_config, tmp_path):
    config = tiny_config(data__classes=(1, 2), sample__schedule=None)
    saved.save(config, tmp_path)
    assert resolve.to_dict(saved.load(tmp_path)) == resolve.to_dict(config)


def test_another_config_in_the_same_workdir(tiny_config, tmp_path):
    saved.save(tiny_config(), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="config.model.base_channels is 16 but was 8; config.seed is 3 but was 0"):
        saved.save(tiny_config(model__base_channels=16, seed=3), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_may_change_when_a_run_resumes(tiny_config, tmp_path):
    saved.save(tiny_config(), tmp_path)
    saved.save(tiny_config(train__log_every=3, sample__num_steps=7, sample__sampler="heun"), tmp_path)
    assert saved.load(tmp_path).sample.sampler == "heun"
    words = r"config.train.steps is 20 but was 12.* may change with config.optimizer.lr_schedule='constant' alone"
    with pytest.raises(UserError, match=words):
        saved.save(tiny_config(train__steps=20), tmp_path)
    # With a constant rate, more steps are the same run.
    saved.save(tiny_config(optimizer__lr_schedule="constant"), tmp_path / "b")
    saved.save(tiny_config(optimizer__lr_schedule="constant", train__steps=20), tmp_path / "b")


def test_a_run_older_than_a_field_resumes_while_the_field_has_its_default(tiny_config, tmp_path):
    saved.save(tiny_config(model__num_classes=10), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["train"]["label_dropout"], config["sample"]["guidance_scale"], config["checksum"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    old = saved.load(tmp_path)
    assert (old.train.label_dropout, old.sample.guidance_scale) == (0.0, None)
    with pytest.raises(UserError, match="config.train.label_dropout is 0.1 but was 0.0"):
        saved.save(tiny_config(**GUIDED), tmp_path)
    saved.save(tiny_config(model__num_classes=10), tmp_path)


def test_other_data_holds_nothing_out(tiny_config):
    config = saved.with_data(tiny_config(data__holdout=0.2), {"classes": (3,)})
    assert (config.data.holdout, config.data.classes) == (0.0, (3,))
    with pytest.raises(UserError, match="config.data.shape: .* no such field"):
        saved.with_data(tiny_config(), {"shape": (8, 8, 1)})


def test_a_workdir_that_is_not_one(tmp_path):
    with pytest.raises(UserError, match=r"config.json does not exist: --workdir must be"):
        saved.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="cannot read .*config.json: it holds a list"):
        saved.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot read .*config.json"):
        saved.load(tmp_path)
    (tmp_path / "config.json").write_text('{"train": {"steps": -1}}')
    with pytest.raises(UserError, match="config.json: config.train.steps: -1 must be a whole number ≥ 1"):
        saved.load(tmp_path)
