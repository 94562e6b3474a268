import os
import signal
import socket
import subprocess
import sys

import pytest

from diffjax.errors import UserError
from diffjax.training.lock import locked


def test_one_run_at_a_time(tmp_path):
    workdir = tmp_path / "run"
    with locked(workdir):
        with pytest.raises(UserError) as caught, locked(workdir):
            pass
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        assert str(caught.value) == f"{workdir} is in use by {holder}: stop that run, or give another --workdir"
        with locked(tmp_path / "other"):
            pass
    with locked(workdir):
        pass


def test_the_lock_dies_with_its_holder(tmp_path):
    code = (
        "import sys, time\n"
        "from diffjax.training.lock import locked\n"
        "with locked(sys.argv[1]):\n"
        "    print(flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UserError, match=f"in use by process {process.pid} on "), locked(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=f"cannot write {tmp_path}/file/run: Not a directory"),
        locked(tmp_path / "file" / "run"),
    ):
        pass
