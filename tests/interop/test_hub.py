"""Repositories of a server that answers as the Hugging Face hub does."""

import json
import sys
import time

import numpy as np
import pytest

from diffjax import interop
from diffjax.errors import UserError
from diffjax.interop import hub
from tests import hub_server

constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")

DIGITS = "experiments/pretrained/digits"


@pytest.fixture
def served(monkeypatch, tmp_path):
    """The hub that huggingface_hub talks to, with a cache of its own."""
    with hub_server.serving() as (address, served):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield served


@pytest.fixture
def digits():
    return interop.load(DIGITS)


def uploaded(served, folder, name="owner/digits", branch="main"):
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    served.models.setdefault(name, {})[branch] = files
    return files


def test_a_repository_is_downloaded_once(served, digits, tmp_path):
    folder = interop.export(tmp_path / "digits", digits)
    files = uploaded(served, folder)
    files |= {"samples.png": b"x", "vae/config.json": b"{}", "unet/diffusion_pytorch_model.bin": b"x"}
    found = interop.load("owner/digits")
    np.testing.assert_array_equal(found.sample(2, seed=0), digits.sample(2, seed=0))
    taken = set(served.downloads)
    assert "unet/diffusion_pytorch_model.safetensors" in taken
    assert not {"samples.png", "vae/config.json", "unet/diffusion_pytorch_model.bin"} & taken
    count = len(served.downloads)
    interop.load("owner/digits")
    assert len(served.downloads) == count


def test_a_revision(served, digits, tmp_path):
    uploaded(served, interop.export(tmp_path / "a", digits))
    changed = digits.with_options(timestep_spacing="leading")
    uploaded(served, interop.export(tmp_path / "b", changed), branch="v2")
    assert interop.load("owner/digits").config.sample.timestep_spacing == "trailing"
    assert interop.load("owner/digits", revision="v2").config.sample.timestep_spacing == "leading"


def test_an_exported_network_is_uploaded_with_its_card(served, digits, tmp_path):
    folder = interop.export(tmp_path / "digits", digits, push="owner/new", private=True)
    files = served.models["owner/new"]["main"]
    assert set(files) == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert "owner/new" in served.private
    card = files["README.md"].decode()
    assert 'interop.load("owner/new")' in card
    assert f"{digits.num_params:,} parameters" in card
    assert str(tmp_path) not in card
    config = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert config["schedule"]["num_timesteps"] == 1000
    np.testing.assert_array_equal(interop.load("owner/new").sample(1, seed=3), digits.sample(1, seed=3))


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("owner/none", None, "owner/none: .*404"),
        ("owner/digits", "v9", "owner/digits, revision v9: .*404"),
        ("owner/text", None, "owner/text: this repository of the hub has no network of diffusers"),
        (DIGITS, "main", "revision='main' must be left out: .* is no repository"),
    ],
)
def test_what_is_not_there(served, name, revision, words):
    served.models["owner/digits"] = {"main": {}}
    served.models["owner/text"] = {"main": {"README.md": b"words"}}
    with pytest.raises(UserError, match=words) as caught:
        interop.load(name, revision=revision)
    assert "\n" not in str(caught.value)


def test_no_connection(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # it tries again
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="owner/digits: ") as caught:
        interop.load("owner/digits")
    assert "\n" not in str(caught.value)


def test_an_upload_that_is_refused_leaves_the_folder(served, digits, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="digits is written, but not uploaded to owner/new: .*401"):
        interop.export(tmp_path / "digits", digits, push="owner/new")
    assert interop.load(tmp_path / "digits").num_params == digits.num_params


@pytest.mark.parametrize("name", ["digits", "a/b/c", "a b/c", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_written(digits, tmp_path, name):
    with pytest.raises(UserError, match="must be OWNER/NAME"):
        interop.export(tmp_path / "digits", digits, push=name)
    assert not (tmp_path / "digits").exists()


def test_without_huggingface_hub(digits, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"need huggingface_hub: pip install '\.\[hub\]'"):
        interop.export(tmp_path / "digits", digits, push="owner/new")
    assert not (tmp_path / "digits").exists()


def test_weights_in_the_safe_format_are_preferred():
    files = ["config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "a.png"]
    assert hub.wanted(files) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert hub.wanted(files[:2]) == files[:2]
