import importlib
import sys
from pathlib import Path

import jax
import pytest

from diffjax import launch
from diffjax.training.loop import train

ROOT = Path(__file__).parents[2]

BRIEF = {
    "schedule.num_timesteps": 20,
    "model.channels": 8,
    "model.multipliers": (1,),
    "model.num_res_blocks": 1,
    "optimizer.learning_rate": 1e-2,
    "optimizer.warmup_steps": 2,
    "train.steps": 60,
    "train.batch_size": 32,
    "train.log_every": 20,
    "train.sample_every": 40,
    "train.checkpoint_every": 60,
    "sample.steps": 5,
}


@pytest.fixture(scope="session")
def workdir(trained_briefly):
    """A network trained for a few steps."""
    sys.path.insert(0, str(ROOT / "configs"))
    import digits

    sys.path.remove(str(ROOT / "configs"))
    return trained_briefly("commands", digits.get_config(), {"train.checkpoint_every": 30, "data.holdout": 0.2})


@pytest.fixture(scope="session")
def trained_briefly(made_once):
    """A function: the workdir, made once, of a config made small, with fields of choice."""

    def of(name, config, fields):
        config.update_from_flattened_dict(BRIEF | fields)

        def make(path):
            jax.config.update("jax_disable_most_optimizations", True)
            train(config, path, progress=False)
            jax.config.update("jax_disable_most_optimizations", False)

        return made_once(name, make)

    return of


@pytest.fixture
def command(monkeypatch):
    """A function: runs a command in this process, which leaves its compilations and its settings alone."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.setattr(launch, "start", lambda **_: None)

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        importlib.import_module(script).main()

    return run
