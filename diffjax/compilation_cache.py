"""Keeps compiled programs on disk, so that a later process starts without compiling them again."""

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache


def use_compilation_cache() -> None:
    """Stores compiled programs in `$DIFFJAX_CACHE`, or else `diffjax/jax` in the user's cache folder.

    All commands do so; a notebook or script calls it once. A `JAX_COMPILATION_CACHE_DIR` that is set takes precedence;
    processes and hosts may share it. Each kind of CPU has a folder of its own, since its programs do not run elsewhere.
    Where the folder cannot be made, it warns and programs are compiled as usual.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("DIFFJAX_CACHE") or user / "diffjax" / "jax") / _cpu()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        warnings.warn(f"no compilation cache: cannot write {folder}: {error.strerror}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    reset_cache()  # a program that was compiled before has turned the cache off


def _cpu() -> str:
    """Returns a name for this host's kind of CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
