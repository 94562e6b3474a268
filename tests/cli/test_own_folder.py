"""Parts from a folder outside the repository, named by import path, serve every command, from any folder."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

OWN = '''
"""Parts of a researcher's own."""

import dataclasses

import diffjax as dj
import numpy as np
from flax import linen as nn


def steep(num_timesteps: int = 1000, *, last: float = 0.3):
    """A schedule.

    Args:
      last: the last beta.
    """
    return dj.schedules.linear(num_timesteps, beta_start=0.01, beta_end=last)


def quiet(schedule, grid, *, factor: float = 0.5):
    """DDPM with less noise.

    Args:
      factor: of each row's noise.
    """
    table = dj.samplers.ddpm(schedule, grid)
    return dataclasses.replace(table, d=factor * table.d)


def every_other(num_timesteps: int, num_steps: int):
    """Every second index."""
    return np.append(np.arange(num_timesteps - 1, -1, -2)[:num_steps], -1)


class Mlp(nn.Module):
    """A network.

    Attributes:
      width: of the hidden layer.
    """

    out_channels: int
    width: int = 8

    @nn.compact
    def __call__(self, x, t, label=None, image=None, *, train=False):
        h = nn.swish(nn.Dense(self.width)(x) + nn.Dense(self.width)(t[:, None] / 20.0)[:, None, None, :])
        return nn.Dense(self.out_channels)(h)


def stripes(size: int = 40):
    """A source of images.

    Args:
      size: the number of images.
    """
    images = np.zeros((size, 8, 8, 1), np.uint8)
    images[:, ::2] = 200
    return dj.data.ArraySource(images + np.arange(size, dtype=np.uint8)[:, None, None, None], np.arange(size) % 2)


def brightness(samples, reference):
    """A metric: how far apart the mean features are."""
    return float(abs(samples.mean() - reference.mean()))


def contrast(samples, reference):
    """A metric whose higher value is better."""
    return float(samples.std() / reference.std())


contrast.higher_is_better = True
'''

CONFIG = """
import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        {
            "data": {"source": "own:stripes", "size": 30, "image_shape": (8, 8, 1)},
            "schedule": {"name": "own:steep", "num_timesteps": 20, "last": 0.4},
            "model": {"name": "own:Mlp", "width": 12},
            "train": {"steps": 6, "batch_size": 8, "log_every": 2, "sample_every": 4, "checkpoint_every": 3},
            "sample": {"sampler": "own:quiet", "factor": 0.7, "num_steps": 5, "timestep_spacing": "own:every_other"},
        }
    )
"""

SWEEP = """
import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            "axes": (("noise", (("0", {"factor": 0.0}), ("1", {"factor": 1.0}))), ("sampler", (("own", {}),))),
            "sample": {"sampler": "own:quiet", "num_steps": 5},
            "num": 8,
            "batch_size": 8,
            "figures": ("own:brightness", "own:contrast", "kernel"),
        }
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with own.py and two configs."""
    path = tmp_path_factory.mktemp("lab")
    for name, text in (("own", OWN), ("stripes_config", CONFIG), ("sweep", SWEEP)):
        (path / f"{name}.py").write_text(textwrap.dedent(text))
    return path


@pytest.fixture
def at_home(folder, monkeypatch):
    """The working folder, as a shell's user has it; nothing of it stays behind."""
    monkeypatch.chdir(folder)
    before = list(sys.path)
    yield folder
    sys.path[:] = before
    sys.modules.pop("own", None)


def test_all_commands(at_home, command, tmp_path):
    run = at_home / "run"
    command("train", "--config", "stripes_config.py", "--workdir", run)
    config = json.loads((run / "config.json").read_text())
    assert config["imports"] == [str(at_home)]
    assert (config["model"]["width"], config["schedule"]["last"], config["sample"]["factor"]) == (12, 0.4, 0.7)
    # The same command resumes, and another value of an own option is refused as any other is.
    command("train", "--config", "stripes_config.py", "--workdir", run, "--config.train.steps=9")
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 9
    with pytest.raises(SystemExit, match="config.model.width is 5 but was 12"):
        command("train", "--config", "stripes_config.py", "--workdir", run, "--config.model.width=5")

    for name, flags in {"own": [], "factor": ["--sample", "factor=0"], "ddim": ["--sampler", "ddim"]}.items():
        command("sample", "--workdir", run, "--num", 4, "--out", tmp_path / name, *flags)
    made = {name: np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("own", "factor", "ddim")}
    assert not np.array_equal(made["own"], made["factor"])
    with pytest.raises(SystemExit, match="nearest: config.sample.factor"):
        command("sample", "--workdir", run, "--sample", "factr=0")

    command("evaluate", "--workdir", run, "--num", 8, "--figures", "own:brightness", "kernel")
    assert json.loads((run / "evaluation.json").read_text())["figures"].keys() == {"own:brightness", "kernel"}
    command("ablate", "--config", "sweep.py", "--workdir", run, "--out", at_home / "sweep")
    table = (at_home / "sweep" / "table.md").read_text()
    assert "own:brightness" in table
    command("report", "--sweep", at_home / "sweep")
    command("report", "--workdir", run, "--num", 4, "--frames", 4, "--images", 4, "--searched", 8, "--counts", 2)
    command("likelihood", "--workdir", run, "--split", "train", "--num", 4)


def test_from_another_folder(folder, tmp_path):
    """A process of its own, elsewhere, finds the modules that the workdir names."""
    run = folder / "run"
    assert run.exists(), "the test above makes it"
    result = subprocess.run(
        [sys.executable, "-m", "diffjax.cli.main", "sample", "--workdir", run, "--num", "2", "--out", tmp_path / "out"],
        cwd=tmp_path, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert np.load(tmp_path / "out" / "samples.npz")["arr_0"].shape == (2, 8, 8, 1)
