"""Upgrades configs of earlier versions when they are read: one map from the old names of fields to the new ones."""

from collections.abc import Mapping
from typing import Any

from diffjax.errors import UserError
from diffjax.fields import shown
from diffjax.runs.resolve import flatten
from diffjax.tasks.base import TASKS

RENAMED = {
    "task.told": "task.noise_conditioning",
    "task.drawn": "task.noise_level_sampling",
    "task.level_scale": "task.noise_level_scale",
    "data.window": "data.crop_box",
    "data.fit": "data.resize",
    "data.turn": "data.random_rot90",
    "data.flip": "data.random_flip",
    "data.resident": "data.on_device",
    "data.cached": "data.cache_in_memory",
    "data.workers": "data.num_workers",
    "data.images": "data.image_key",
    "data.labels": "data.label_key",
    "data.conditions": "data.condition_key",
    "schedule.offset": "schedule.s",
    "schedule.width": "schedule.sigmoid_range",
    "model.channels": "model.base_channels",
    "model.multipliers": "model.channel_mults",
    "model.groups": "model.num_groups",
    "model.scale_shift": "model.use_scale_shift_norm",
    "model.head_channels": "model.num_head_channels",
    "train.hybrid": "train.vlb_weight",
    "train.loss": "train.loss_norm",
    "train.weighting": "train.loss_weighting",
    "train.timesteps": "train.timestep_sampling",
    "train.accumulate": "train.grad_accumulation_steps",
    "train.keep": "train.max_to_keep",
    "train.max_skipped": "train.max_nonfinite_steps",
    "train.steps_per_dispatch": "train.steps_per_call",
    "optimizer.decay": "optimizer.lr_schedule",
    "optimizer.clip_norm": "optimizer.grad_clip_norm",
    "sample.steps": "sample.num_steps",
    "sample.grid": "sample.timestep_spacing",
    "sample.guidance": "sample.guidance_scale",
    "sample.num_timesteps": "sample.schedule.num_timesteps",
    "sample.beta_start": "sample.schedule.beta_start",
    "sample.beta_end": "sample.schedule.beta_end",
}
"""Old name → new name. Fields that are not listed have kept their names."""

_VALUES = {("data.resize", "resize"): "cover"}
"""(field, old value) → new value."""

_SECTIONS = sorted({name.partition(".")[0] for name in RENAMED.values()} | {"model", "task"})
"""The sections that get fields."""


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested config with the new names; a config that has them already is returned unchanged.

    Raises:
      UserError: a section of an old config that is not a mapping.
    """
    flat = flatten(config)
    if not _is_old(flat):
        if not _is_rounded_karras(flat):
            return dict(config)
        return dict(config) | {"sample": dict(config["sample"]) | {"rounded": True}}
    for section in _SECTIONS:
        if not isinstance(config.get(section, {}), Mapping):
            raise UserError(f"config.{section}: {shown(config[section])} must be a section of fields")
    flat = {RENAMED.get(name, name): value for name, value in flat.items()}
    flat = {name: _VALUES.get((name, value), value) if _hashable(value) else value for name, value in flat.items()}
    # Old configs have every field; None or an empty string stands for a default.
    optional = ("optimizer.grad_clip_norm",)
    flat = {name: value for name, value in flat.items() if name in optional or value not in (None, "")}
    flat.setdefault("task.name", "generation")
    if _is_rounded_karras(flat):
        flat["sample.rounded"] = True
    # They also have the options of all tasks. An unknown task is left for `resolve` to report.
    if flat["task.name"] in TASKS:
        kept = {"task.name", *(f"task.{option}" for option in TASKS[flat["task.name"]].OPTIONS)}
        flat = {name: value for name, value in flat.items() if name in kept or not name.startswith("task.")}
    if flat["task.name"] == "generation":
        flat.pop("task.noise_conditioning", None)  # that of the other tasks: these networks were conditioned on t
    flat.pop("model.out_channels", None)
    # Old configs do not name the network, which is always the UNet.
    flat.setdefault("model.name", "unet")
    return _nested(flat)


def _is_old(flat: Mapping[str, Any]) -> bool:
    """Returns whether a saved config is of before the schema: since then each names its network."""
    return "model.name" not in flat


def _is_rounded_karras(flat: Mapping[str, Any]) -> bool:
    """Returns whether a saved config is of when the spacing karras was of whole timesteps, and had no option for it."""
    return flat.get("sample.timestep_spacing") == "karras" and "sample.rounded" not in flat


def _hashable(value: Any) -> bool:
    return not isinstance(value, (list, dict))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, field = path.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[field] = value
    return nested
