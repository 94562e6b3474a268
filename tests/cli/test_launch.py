import argparse
import errno
import os
import subprocess
import sys
import warnings

import jax
import pytest

from diffjax.cli import launch
from diffjax.errors import UserError


@pytest.mark.parametrize(
    ("cores", "batch_size", "devices"), [(2, 64, 2), (6, 64, 4), (6, None, 6), (2, 7, 1), (64, 128, 8), (1, 64, 1)]
)
def test_a_cpu_device_for_each_core_that_the_batch_can_use(monkeypatch, cores, batch_size, devices):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    set_to = {}
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    launch.use_cores(batch_size)
    assert set_to == {"jax_num_cpu_devices": devices}
    # XLA's own limit would end a run whose cores are shared.
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_collective_call_terminate_timeout_seconds=86400"


def test_a_number_of_cpu_devices_that_is_set_stays(monkeypatch):
    before = os.environ["XLA_FLAGS"]
    assert "xla_force_host_platform_device_count=8" in before
    monkeypatch.setattr(jax.config, "update", None)
    launch.use_cores(64)
    assert os.environ["XLA_FLAGS"] == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num-processes", "2", "--process-id", "0"], "--coordinator is missing: --coordinator, --num-processes and"),
        (["--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"], "--process-id=2: allowed is 0 … 1"),
        (["--coordinator", "a", "--num-processes", "2", "--process-id", "0"], "--coordinator='a' must be HOST:PORT"),
        (["--distributed"], r"cannot join the other processes: .*\(no cluster that JAX knows\?"),
    ],
)
def test_processes_that_cannot_be_joined(flags, words, monkeypatch):
    monkeypatch.setattr(launch, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    parser = argparse.ArgumentParser()
    launch.add_flags(parser)
    with pytest.raises(UserError, match=words):
        launch.start(**launch.processes(parser.parse_args(flags)))


def test_errors_of_a_person_are_one_line():
    with pytest.raises(SystemExit) as caught, launch.reporting():
        raise UserError("config.train.steps: 0")
    assert caught.value.code == "error: config.train.steps: 0"
    with pytest.raises(KeyError), launch.reporting():
        {}["x"]


def test_a_process_that_the_others_do_not_join_ends_with_one_line():
    program = (
        "from diffjax.cli import launch; launch._JOIN_SECONDS = 1; "
        "launch.start(coordinator='127.0.0.1:1', num_processes=2, process_id=1)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: all 2 processes have not met at 127.0.0.1:1 within 1 s: start each with")
    assert len(result.stderr.splitlines()) == 1


def test_output_to_a_full_disk_is_one_line():
    with (
        pytest.raises(SystemExit, match="^error: cannot write the output: No space left on device$"),
        launch.reporting(),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
