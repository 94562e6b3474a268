"""Signals, in processes of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


PROGRAM = """
import os, signal, time
from diffjax.cli.interrupts import Interrupts

interrupts = Interrupts("interrupted: all is kept")
"""


SECOND = """
signal.signal(signal.SIGINT, lambda *_: None)  # as training takes it over
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.5)
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    time.sleep(60)
"""

DROPPED = """
class Raising:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

Raising()
time.sleep(60)
"""

WITHOUT_EFFECT = """
import diffjax.cli.interrupts
diffjax.cli.interrupts._GRACE = 0.1
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    time.sleep(60)
"""


@pytest.mark.parametrize(("code", "status"), [(SECOND, 143), (DROPPED, 130), (WITHOUT_EFFECT, 130)])
def test_a_signal_ends_the_process(code, status):
    before = time.monotonic()
    with started("-c", PROGRAM + code) as process:
        _, errors = process.communicate(timeout=50)
    assert time.monotonic() - before < 50
    assert process.returncode == status
    assert errors.strip() == "interrupted: all is kept"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_is_one_line_and_names_what_is_kept(workdir, tmp_path, number, status):
    flags = ["--workdir", workdir, "--num", 10**6, "--out", tmp_path]
    with started("-m", "diffjax.cli.main", "sample", *flags) as process:
        while not list((tmp_path / "parts").glob("*.npz")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=50)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "interrupted: finished batches are kept, and the same command resumes"
    assert (tmp_path / "parts" / "000000000.npz").exists()
    assert not re.search("interrupted.*interrupted", errors, re.DOTALL)


RESTORING = {
    "task.name": "super_resolution", "data.degradation.kinds": ("bicubic",), "data.degradation.factor": 2,
    "data.holdout": 0.2,
}  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_restore_is_one_line(trained_briefly, tmp_path, number, status):
    run = trained_briefly("killed_restoring", "digits", RESTORING)
    slow = "sampler=ddpm,num_samples=10000"
    flags = ["--workdir", run, "--num", 64, "--batch-size", 8, "--sample", slow, "--out", tmp_path / "out"]
    with started("-u", "-m", "diffjax.cli.main", "restore", *flags) as process:
        while not process.stdout.readline().startswith("sampler=ddpm"):  # its line before it restores
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        _, errors = process.communicate(timeout=50)
    assert process.returncode == status, errors
    assert errors.strip() == "interrupted: nothing is kept, and the same command starts anew"
    assert not (tmp_path / "out").exists()


TENSORFLOW_DATASETS = """
import pathlib, time
from types import SimpleNamespace as core_of

class DatasetNotFoundError(Exception): pass
class DownloadError(Exception): pass
core = core_of(DatasetNotFoundError=DatasetNotFoundError)
download = core_of(DownloadConfig=dict, DownloadError=DownloadError)

class Builder:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def download_and_prepare(self, **_):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "downloaded").touch()
        if self.folder.name == "full":
            raise RuntimeError("RESOURCE_EXHAUSTED: writing\\nfailed: No space left on device")
        time.sleep(60)

def builder(name, *, data_dir, file_format):
    return Builder(data_dir)
"""


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Arguments of a `prepare` that sleeps; it stands in for TensorFlow, which need not be installed."""
    (tmp_path / "tensorflow.py").touch()
    package = tmp_path / "tensorflow_datasets"
    (package / "core/download").mkdir(parents=True)
    (package / "__init__.py").write_text(TENSORFLOW_DATASETS)
    (package / "core/__init__.py").touch()
    (package / "core/download/__init__.py").touch()
    (package / "core/download/download_manager.py").write_text("class NonMatchingChecksumError(Exception): pass")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    return ["-m", "diffjax.cli.main", "prepare", "--dataset", "cifar10", "--data-dir", tmp_path / "data"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_prepare_is_one_line(prepare, tmp_path, number, status):
    with started(*prepare) as process:
        while not (tmp_path / "data/downloaded").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=50)
    assert process.returncode == status, errors
    assert errors.strip() == "interrupted: complete downloads are kept, and the same command resumes"


def test_a_full_disk_of_prepare_is_one_line(prepare, tmp_path):
    with started(*prepare[:-1], tmp_path / "full") as process:
        _, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (
        1,
        "error: cannot prepare cifar10: RESOURCE_EXHAUSTED: writing failed: No space left on device\n",
    )


AT_THE_END = """
import atexit, os, signal, sys, time
from diffjax.cli import main

def late():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

atexit.register(late)
main.entry_point({argv})
"""


@pytest.mark.parametrize(
    ("argv", "words"), [(["--version"], ""), (["sample", "--weights", "nowhere"], "error: nowhere does not exist\n")]
)
def test_a_signal_while_python_shuts_down_adds_nothing(argv, words):
    with started("-c", AT_THE_END.format(argv=argv)) as process:
        _, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (130, words)


SLOW_IMPORT = """
import os, signal, sys, time

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{signal})
            time.sleep(60)

sys.meta_path.insert(0, Finder())
from diffjax_main import entry_point
entry_point(["sample", "--weights", "nowhere"])
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("module", ["jax", "diffjax.cli.launch"])
def test_a_signal_during_the_imports_is_one_line(module, name, status):
    code = SLOW_IMPORT.format(module=module, signal=name)
    with started("-c", code) as process:
        _, errors = process.communicate(timeout=50)
    assert process.returncode == status, errors
    (line,) = errors.splitlines()
    assert line.startswith("interrupted: ")


def test_the_scripts_start_there():
    for path in (ROOT / "experiments").glob("*.py"):
        if "entry_point(" in (text := path.read_text()):
            assert "from diffjax_main import entry_point" in text
    assert 'diffjax = "diffjax_main:entry_point"' in (ROOT / "pyproject.toml").read_text()
