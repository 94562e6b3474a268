import contextlib
import importlib.util
import resource
from pathlib import Path

import pytest

from diffjax.errors import UserError
from diffjax.training.loop import train

ROOT = Path(__file__).parents[2]

TINY = {
    "schedule.num_timesteps": 20,
    "model.channels": 8,
    "model.multipliers": (1,),
    "model.num_res_blocks": 1,
    "optimizer.warmup_steps": 2,
    "train.steps": 12,
    "train.batch_size": 8,
    "train.log_every": 1,
    "train.sample_every": 1000,
    "train.checkpoint_every": 4,
    "sample.steps": 5,
}


@pytest.fixture
def tiny_config():
    """A function: configs/digits.py on a network that trains in seconds, with fields of choice."""
    spec = importlib.util.spec_from_file_location("digits_config", ROOT / "configs" / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(**fields):
        config = module.get_config()
        config.update_from_flattened_dict(TINY | {name.replace("__", "."): value for name, value in fields.items()})
        return config

    return make


@pytest.fixture
def refused(tiny_config, tmp_path, count_compilations):
    """A function: training with these fields is refused, in one line that says `words`, before anything is done."""

    def check(fields, words):
        with pytest.raises(UserError, match=words) as caught:
            train(tiny_config(**fields), tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value)
        assert count_compilations() == 0
        assert not (tmp_path / "run").exists()

    return check


@pytest.fixture
def tiny_flags():
    """The same as command-line flags."""

    def make(**fields):
        values = TINY | {name.replace("__", "."): value for name, value in fields.items()}
        return [f"--config.{name}={value}" for name, value in values.items()]

    return make


@pytest.fixture
def file_size_limit():
    """A context in which no file of this process can grow past a number of bytes: a full disk without a disk."""

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
