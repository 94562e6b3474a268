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
