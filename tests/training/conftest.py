import contextlib
import resource

import jax
import pytest


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
