"""Lazy modules are typed: a type checker sees the public face, and refuses what is not there."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is not installed")
def test_public_face():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
