import sys

import pytest

from diffjax.registry import Registry, call, import_path


@pytest.fixture
def registry():
    found = Registry("schedule")

    @found.register
    def linear(num_timesteps, *, beta=0.1):
        return num_timesteps, beta

    found.register(max, name="largest")
    return found


def test_lookup_by_name_and_by_import_path(registry):
    assert registry["linear"](3) == (3, 0.1)
    assert registry["largest"] is max
    assert registry["os.path:join"] is import_path("os.path:join")
    assert registry["collections:OrderedDict.fromkeys"]("a") == {"a": None}
    assert list(registry) == ["linear", "largest"]
    assert len(registry) == 2
    assert "linear" in registry
    assert ["linear"] not in registry
    assert repr(registry) == "Registry(schedule: linear, largest)"


def test_register_returns_the_entry_and_refuses_a_second_of_the_same_name(registry):
    with pytest.raises(ValueError, match="the schedule 'linear' is registered already"):
        registry.register(min, name="linear")


def test_a_definition_that_is_run_again_replaces_its_entry(registry):
    def define():
        def cosine():
            pass

        return cosine

    first, second = define(), define()
    registry.register(first)
    registry.register(second)
    assert registry["cosine"] is second


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("linaer", "'linaer' is not one of 'linear', 'largest', nor an import path 'package.module:attribute'"),
        (None, "None is not one of"),
        (["linear"], "is not one of"),
        ("no_such_module:f", "'no_such_module:f' cannot be imported: ModuleNotFoundError"),
        ("os:no_such_name", "'os:no_such_name' cannot be imported: AttributeError"),
        ("os:", "'os:' cannot be imported"),
        (":f", "':f' cannot be imported"),
    ],
)
def test_unknown_names(registry, name, words):
    with pytest.raises(ValueError, match=words) as error:
        registry[name]
    assert "\n" not in str(error.value)


def test_an_error_in_an_imported_module_is_one_line(registry, tmp_path, monkeypatch):
    (tmp_path / "broken_lab.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'broken_lab:f' cannot be imported: RuntimeError: two lines"):
        registry["broken_lab:f"]


def test_a_package_is_imported_before_the_first_lookup(tmp_path, monkeypatch):
    package = tmp_path / "lab_of_entries"
    package.mkdir()
    (package / "__init__.py").write_text("from diffjax.registry import Registry\nLAB = Registry('x', package=__name__)")
    (package / "one.py").write_text("from lab_of_entries import LAB\n@LAB.register\ndef entry(): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    registry = import_path("lab_of_entries:LAB")
    assert "lab_of_entries.one" not in sys.modules
    assert list(registry) == ["entry"]


def test_call_passes_what_the_function_names(registry):
    given = {"num_timesteps": 5, "schedule": None}
    assert call(registry["linear"], given, {}) == (5, 0.1)
    assert call(registry["linear"], given, {"beta": 0.2}) == (5, 0.2)
    assert call(lambda **options: options, given, {"a": 1}) == {"a": 1}
    with pytest.raises(ValueError, match="gamma=1 is not an option here; the options are: beta"):
        call(registry["linear"], given, {"gamma": 1})
