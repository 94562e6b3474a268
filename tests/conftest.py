import contextlib
import fcntl
import os
import resource
import shutil
from importlib.metadata import version
from pathlib import Path

# Before JAX is imported: several host devices, so that data-parallel code is tested as such.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Eight devices on cores that others share may wait for one another for long; XLA would abort the process.
os.environ["XLA_FLAGS"] += " --xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far longer than they run. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests the programs that users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and version("jaxlib").split(".")[:2] == ["0", "10"]:
    # XLA's older code for fused operations, which later versions do not have, compiles in less than half the time.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# With a worker a core, the threads of PyTorch and NumPy would spend most of their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest
from hypothesis import settings
from jax.experimental.compilation_cache.compilation_cache import reset_cache

settings.register_profile("diffjax", deadline=None, max_examples=50)
settings.load_profile("diffjax")

TESTS = Path(__file__).parent

TIERS = {"parity": "parity", "integration": "integration", "cli": "integration"}
"""Folders of tests and their tier. Slow tests and those for an accelerator are in none; all others are `fast`."""


def pytest_xdist_auto_num_workers(config):
    """Returns one worker more than there are cores: tests of commands wait for processes and for sleeps."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None


def pytest_collection_modifyitems(items):
    """Marks each test with its tier."""
    for item in items:
        if not (item.get_closest_marker("slow") or item.get_closest_marker("gpu")):
            item.add_marker(TIERS.get(item.path.relative_to(TESTS).parts[0], "fast"))


@pytest.fixture(scope="session", autouse=True)
def kept_programs(shared_folder):
    """Keeps compiled programs on disk for all workers of a run and for the processes that tests start.

    Where `JAX_COMPILATION_CACHE_DIR` is set, the next run finds them there.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(shared_folder / "compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    reset_cache()  # what was compiled while test modules were imported has turned it off


@pytest.fixture(scope="module", autouse=True)
def released_programs():
    """Releases the compiled programs of a module: thousands of them would use up a process's memory maps."""
    yield
    if number_of_memory_maps() > 20_000:
        jax.clear_caches()


def number_of_memory_maps():
    maps = Path("/proc/self/maps")
    return len(maps.read_text().splitlines()) if maps.exists() else 1 << 20


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


TINY = {
    "schedule.num_timesteps": 20,
    "model.base_channels": 8,
    "model.channel_mults": (1,),
    "model.num_res_blocks": 1,
    "model.middle_blocks": False,
    "optimizer.warmup_steps": 2,
    "train.steps": 12,
    "train.batch_size": 8,
    "train.log_every": 1,
    "train.sample_every": 1000,
    "train.checkpoint_every": 4,
    "sample.num_steps": 5,
}
"""Fields that make a config small and its training short."""


@pytest.fixture(scope="session")
def tiny_config():
    """A function: the resolved config of the digits with `TINY` and fields of choice (`train__steps=3`)."""
    from diffjax.runs import config_files, resolve

    def make(**fields):
        changes = {name.replace("__", "."): value for name, value in fields.items()}
        return resolve.override(config_files.load("digits"), TINY | changes)

    return make


@pytest.fixture(scope="session")
def storage():
    """The objects of the buckets that gs://… names in this process and in those that it starts, in memory."""
    from storage_server import serving

    with serving() as (objects, address), pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # kinds of buckets that the server does not know
        pytest.importorskip("gcsfs")
        yield objects


@pytest.fixture
def count_compilations():
    """A function: the number of programs that were compiled, or read from disk, since it was last called.

    The event is that of a program that is in none of JAX's caches in memory; programs on disk change nothing here.
    """
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


@pytest.fixture
def file_size_limit():
    """A context in which no file of this process can grow past a number of bytes: a full disk without a disk."""

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        threshold = jax.config.jax_persistent_cache_min_compile_time_secs
        jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))  # no program is kept, cut short
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", threshold)

    return limit
