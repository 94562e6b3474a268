import fcntl
import os
import shutil

# Before JAX is imported: several host devices, so that data-parallel code is tested as such.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import settings

settings.register_profile("diffjax", deadline=None, max_examples=50)
settings.load_profile("diffjax")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(shared_folder):
    """Processes that tests start keep their compiled programs to the tests, and share them."""
    os.environ["DIFFJAX_CACHE"] = str(shared_folder / "compiled")


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that all workers of this run have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def made_once(shared_folder, tmp_path_factory):
    """A function: (name, make) → a copy of the folder that `make(path)` fills for the first worker that asks."""

    def copy(name, make):
        folder, part = shared_folder / name, shared_folder / f"{name}.part"
        with (shared_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(part, ignore_errors=True)
                make(part)
                part.rename(folder)
        return shutil.copytree(folder, tmp_path_factory.mktemp(name) / "copy")

    return copy


@pytest.fixture
def quick_compilation():
    """Compiles with few optimizations: for a network that is compiled once and runs for a few steps."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def count_compilations():
    """A function: how many programs XLA has compiled since it was last called."""
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    def count():
        number = len(compiled)
        compiled.clear()
        return number

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield count
    jax.monitoring.unregister_event_duration_listener(listen)
