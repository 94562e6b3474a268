"""Every field of every config: its default is valid, and a wrong value ends in one line that names it."""

import json
import math
import re
from pathlib import Path

import pytest

from diffjax.errors import UserError
from diffjax.fields import REQUIRED
from diffjax.runs import build, config_files, reference, resolve
from diffjax.runs.config import SCHEMA, Section
from diffjax.runs.train import train
from diffjax.runs.upgrade import RENAMED
from diffjax.tasks.base import TASKS

WRONG = {
    "text": "no such thing",
    "empty text": "",
    "minus one": -1,
    "zero": 0,
    "huge": 10**12,
    "large": 1e12,
    "half": 0.5,
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "tiny": 1e-300,
    "none": None,
    "list": [],
    "numbers": (5,),
    "texts in a tuple": ("a", "b"),
    "three numbers": (0, -1, 10**12),
    "nan in a tuple": (math.nan, 1.0),
    "dict": {},
    "filled dict": {"a": 1},
    "true": True,
    "bytes": b"x",
}
"""Values that are wrong for most fields; where one is allowed, it must be accepted and mean what it says."""

BASE = {
    "schedule": {"num_timesteps": 20},
    "model": {"base_channels": 8, "channel_mults": (1,), "num_res_blocks": 1, "num_groups": 4},
    "train": {"batch_size": 8},
    "sample": {"num_steps": 5},
}


def base():
    config = config_files.load("digits")
    config.update(BASE)
    return resolve.resolve(config)


def named_variants():
    """(path, value) of every name that a section may hold, so that the options of each are walked."""
    yield "seed", 0
    for section_path, section in sections(SCHEMA, ""):
        for field, named in section.named.items():
            for name in named.registry:
                yield f"{section_path}{field}", name


def sections(section, prefix):
    yield prefix, section
    for name, spec in section.fields.items():
        if isinstance(spec, Section) and not spec.optional:
            yield from sections(spec, f"{prefix}{name}.")


def variant(path, value):
    """A config with that name, required options filled in."""
    changes = {path: value}
    needed = {
        "uniform": {"stride": 4},
        "sections": {"counts": "5"},
        "explicit": {"indices": (19, 10, 0)},
        "learned": {"path": "nowhere.json"},
        "analytic": {"path": "nowhere.json"},
        "from_sigmas": {"sigmas": (3.0, 0.5, 0.0)},
        "npz": {"path": "nowhere.npz"},
        "folder": {"path": "nowhere"},
        "pairs": {"path": "nowhere"},
        "tfds": {"dataset": "mnist"},
        "from_betas": {"betas": (0.1,) * 20},
        "distillation": {"teacher": "nowhere"},
    }.get(value, {})
    if path == "train.timestep_sampling":
        needed = {}
    section = path.rpartition(".")[0]
    changes |= {f"{section}.{name}": option for name, option in needed.items()}
    if path == "task.name" and TASKS[value].is_conditional:
        changes["data.degradation.kinds"] = ("gaussian",)
    return resolve.override(base(), changes)


def check(config, data=True):
    """What training does before any device work."""
    task = build.task(config)
    build.sampling(config, task)
    if data:
        build.training(config, task, 1)


def test_defaults_are_valid():
    for path, field in resolve.walk():
        if field.default is not REQUIRED:
            assert field.check(field.default) == field.default, path
        assert field.doc.strip(), path


def test_every_name_can_be_resolved():
    for path, value in named_variants():
        config = variant(path, value)
        assert json.loads(json.dumps(resolve.to_dict(config))), (path, value)
        assert resolve.to_dict(resolve.resolve(resolve.to_dict(config))) == resolve.to_dict(config)


@pytest.mark.parametrize(("path", "value"), list(named_variants()))
def test_wrong_values(path, value, tmp_path, count_compilations):
    """No traceback, no hang; whatever is refused is refused in one line that names the field."""
    config = variant(path, value)
    section = path.rpartition(".")[0]
    fields = {
        name: field
        for name, field in resolve.walk(config)
        if path == "seed" or (name.startswith(f"{section}.") and name not in dict(resolve.walk()))
    }
    outcomes = {"clear": 0, "accepted": 0}
    data = resolve.flatten(config)["data.source"] == "digits"
    for field in fields:
        for kind, wrong in WRONG.items():
            try:
                changed = resolve.override(config, {field: wrong})
                check(changed, data)
                outcomes["accepted"] += 1
            except UserError as error:
                outcomes["clear"] += 1
                message = str(error)
                assert "\n" not in message, (field, kind, message)
                assert len(message) < 1500, (field, kind, message)
                # A value may be wrong for another field's sake, which is then named.
                assert re.match(r"config\.\w+", message), (field, kind, message)
    assert count_compilations() == 0
    assert outcomes["clear"] > outcomes["accepted"] or not fields


def test_text_of_a_command_line():
    config = resolve.parse(base(), {"model.remat": "True", "train.steps": "12", "train.ema_decays": "(0.9, 0.99)"})
    assert (config.model.remat, config.train.steps, config.train.ema_decays) == (True, 12, (0.9, 0.99))
    assert resolve.parse(base(), {"optimizer.grad_clip_norm": ""}).optimizer.grad_clip_norm is None
    assert resolve.parse(base(), {"sample.clip": "None"}).sample.clip is None
    assert resolve.parse(base(), {"sample.clip": "2"}).sample.clip == 2.0
    assert resolve.parse(base(), {"sample.clip": "dynamic", "sample.percentile": "0.9"}).sample.percentile == 0.9
    # The options of a name may come before it, and a text that looks like a number stays a text.
    config = resolve.parse(base(), {"data.path": "12", "data.source": "folder"})
    assert config.data.path == "12"
    for text in ("2000.5", "many", "nan", "-1", "True"):
        with pytest.raises(UserError, match=r"^config.train.steps: .* must be a whole number ≥ 1$"):
            resolve.parse(base(), {"train.steps": text})


def test_another_name_drops_the_options_of_the_old_one():
    config = resolve.override(base(), {"sample.eta": 0.5})
    assert "eta" not in resolve.override(config, {"sample.sampler": "ddpm"}).sample
    assert resolve.override(config, {"sample.sampler": "ddim"}).sample.eta == 0.5
    with pytest.raises(UserError, match=r"config.sample.eta: 0.5 is given, but config.sample has no such field"):
        resolve.override(config, {"sample.sampler": "ddpm", "sample.eta": 0.5})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.dropout": 1.5}, r"config.model.dropout: 1.5 must be"),
        ({"model.dropout": math.nan}, r"config.model.dropout: nan must be"),
        ({"model.num_res_blocks": -1}, r"config.model.num_res_blocks: -1 must be"),
        ({"model.attention_resolutions": (5,)}, r"config.model.attention_resolutions: .*5"),
        ({"optimizer.learning_rate": math.inf}, r"config.optimizer.learning_rate: inf must be a number > 0"),
        ({"optimizer.grad_clip_norm": math.nan}, r"config.optimizer.grad_clip_norm: nan must be"),
        ({"data.random_flip": math.nan}, r"config.data.random_flip: nan must be True or False"),
        ({"data.degradation.sigma": ("a", "b")}, r"config.data.degradation.sigma: \('a', 'b'\) must be a tuple of 2"),
        ({"schedule.name": "lineer"}, r"config.schedule.name: 'lineer' must be one of 'linear', "),
        ({"train.stepz": 3}, r"config.train.stepz: 3 is given, .*nearest: config.train.steps"),
        ({"train": 3}, r"config.train: 3 must be a section"),
        ({"schedule.name": "nowhere:linear"}, r"config.schedule.name: 'nowhere:linear' cannot be imported: ModuleNot"),
        ({"model.base_channels": 10**12}, r"config.model.base_channels: 1000000000000 must be"),
    ],
)
def test_messages(changes, words, tmp_path):
    with pytest.raises(UserError, match=words):
        check(resolve.override(base(), changes))


def test_nothing_is_made_of_a_wrong_config(tmp_path):
    config = resolve.to_dict(base())
    config["train"]["batch_size"] = 0
    with pytest.raises(UserError, match="config.train.batch_size"):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_reference_lists_every_field():
    text, page = reference.text(), reference.markdown()
    for path, _ in resolve.walk():
        assert re.search(rf"^  {re.escape(path)} = ", text, re.MULTILINE), path
        assert f"| `{path.rpartition('.')[2]}` |" in page
    for name in ("remat", "num_heads", "use_scale_shift_norm", "weight_decay", "stride", "rho", "percentile"):
        assert name in text


def test_renamed_fields_are_none_of_todays():
    todays = {path for path, _ in resolve.walk()}
    assert not todays & RENAMED.keys()


def test_docs_have_the_reference_of_today():
    page = Path(__file__).parents[2] / "docs" / "config.md"
    assert page.read_text() == reference.markdown(), "run: python -m diffjax.runs.reference > docs/config.md"
