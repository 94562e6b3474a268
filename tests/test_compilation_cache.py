import stat

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

import diffjax as dj


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """No cache folder is set, and none is after the test."""
    for name in ("DIFFJAX_CACHE", "XDG_CACHE_HOME", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


@pytest.mark.parametrize(
    ("variable", "parent"),
    [(None, "home/.cache/diffjax/jax"), ("XDG_CACHE_HOME", "x/diffjax/jax"), ("DIFFJAX_CACHE", "x")],
)
def test_compiled_programs_are_kept_in_a_user_folder(no_cache, monkeypatch, tmp_path, variable, parent):
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "x"))
    dj.use_compilation_cache()
    (folder,) = (tmp_path / parent).iterdir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert stat.S_ISDIR(folder.stat().st_mode)


def test_a_cache_that_is_set_wins(no_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    dj.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not (tmp_path / "home").exists()


def test_a_cache_that_cannot_be_made_is_only_warned_of(no_cache, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFJAX_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="no compilation cache: cannot write .*: Not a directory"):
        dj.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_it_can_be_turned_on_after_a_program_was_compiled(no_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    reset_cache()
    jax.jit(lambda x: x + 1.25)(jnp.ones(3))
    dj.use_compilation_cache()
    jax.jit(lambda x: x * 1.75 - 2)(jnp.ones(3))
    (folder,) = (tmp_path / "home/.cache/diffjax/jax").iterdir()
    assert any(folder.iterdir())
