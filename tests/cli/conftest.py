import pytest

from diffjax.cli import launch, main
from diffjax.runs import config_files, resolve
from diffjax.runs.train import train

BRIEF = {
    "schedule.num_timesteps": 20,
    "model.base_channels": 8,
    "model.channel_mults": (1,),
    "model.num_res_blocks": 1,
    "model.middle_blocks": False,
    "optimizer.learning_rate": 1e-2,
    "optimizer.warmup_steps": 2,
    "train.steps": 60,
    "train.batch_size": 32,
    "train.log_every": 20,
    "train.sample_every": 40,
    "train.checkpoint_every": 60,
    "train.final_pictures": False,
    "sample.num_steps": 5,
}
"""Fields that make a config small and its training short."""


@pytest.fixture(scope="session")
def workdir(trained_briefly):
    """A network trained for a few steps."""
    return trained_briefly("commands", "digits", {"train.checkpoint_every": 30, "data.holdout": 0.2})


@pytest.fixture(scope="session")
def trained_briefly(made_once):
    """A function: (name, config name, fields) → the workdir, made once, of the config with `BRIEF` and the fields."""

    def of(name, config, fields):
        config = resolve.override(config_files.load(config), BRIEF | fields)

        def make(path):
            train(config, path, progress=False)

        return made_once(name, make)

    return of


@pytest.fixture
def command(monkeypatch):
    """A function: runs a command in this process, whose compilations and settings it leaves alone."""
    monkeypatch.setattr(launch, "start", lambda **_: None)
    return lambda name, *arguments: main.command(name, [str(argument) for argument in arguments])
