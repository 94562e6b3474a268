"""Reads the weights in a folder of diffusers' `save_pretrained`: one file or shards, of full or half precision."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from diffjax import json_files, state_dicts
from diffjax.errors import UserError, read_json
from diffjax.interop import mapping

NAME = "diffusion_pytorch_model.safetensors"
"""The file that diffusers reads first, and that an export writes."""

_FILES = (
    NAME,
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.bin.index.fp16.json",
)
"""The files that can hold or list the weights; the first that exists is read."""


def read_weights(folder: Path) -> tuple[mapping.State, Path]:
    """Returns the tensors by name (half precision widened to float32), and the file that holds or lists them.

    Raises:
      UserError: no file of weights, one that cannot be read, or shards that are missing or incomplete.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        found = ", ".join(sorted(entry.name for entry in folder.glob("*") if entry.is_file())) or "nothing"
        raise UserError(
            f"{folder / NAME} does not exist (the folder holds {found}): load the network with diffusers and write it "
            "with save_pretrained(safe_serialization=True)"
        )
    if path.suffix == ".json":
        return _read_shards(path), path
    return state_dicts.state_dict(state_dicts.read(path), path), path


def write_weights(folder: Path, state: mapping.State, configs: Mapping[Path, Mapping]) -> None:
    """Writes the weights of an export, with checksums of the tensors and of its configs.

    Args:
      folder: the folder of the network.
      state: the tensors by name.
      configs: the configs by file.
    """
    sums = {path.name: str(json_files.checksum(config)) for path, config in configs.items()}
    (folder / NAME).write_bytes(state_dicts.to_safetensors(state, {"format": "pt"} | sums))


def warn_of_changes(folder: Path, configs: tuple[Path, ...]) -> None:
    """Warns of configs that are not those with which `write_weights` wrote the weights in `folder`."""
    metadata = state_dicts.read_metadata(folder / NAME)
    for path in configs:
        if path.name in metadata and metadata[path.name] != str(json_files.checksum(read_json(path, ""))):
            warnings.warn(f"{path} is not as it was exported (edited, or damaged); it is used as it is", stacklevel=3)


def _read_shards(index: Path) -> mapping.State:
    """Returns the tensors of all shards that an index lists."""
    places = read_json(index, "it lists the shards").get("weight_map")
    if not isinstance(places, Mapping) or not all(_is_file_name(name) for name in places.values()):
        raise UserError(f"cannot read {index}: its weight_map must map the names of tensors to the names of files")
    state: mapping.State = {}
    for name in sorted(set(places.values())):
        shard = index.parent / name
        state |= state_dicts.state_dict(state_dicts.read(shard), shard)
    if missing := sorted(places.keys() - state.keys()):
        raise UserError(f"{index} lists tensors that the shards lack: {', '.join(missing)}")
    return state


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name
