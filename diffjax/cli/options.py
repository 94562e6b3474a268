"""Adds and parses the arguments that several commands share.

--config NAME --config.FIELD=VALUE       an experiment, and changed values of its fields
--workdir FOLDER                         a trained run
--ema DECAY | --raw                      which of its parameters
--sample FIELD=VALUE[,FIELD=VALUE…]      changed fields of config.sample
--data FIELD=VALUE[,FIELD=VALUE…]        changed fields of config.data
"""

import argparse
import ast
import os
import re
from pathlib import Path
from typing import Any

import ml_collections

from diffjax import files
from diffjax.errors import UserError
from diffjax.runs import config_files, resolve, saved
from diffjax.runs.config import SCHEMA, Section

SAMPLE_FLAGS = {
    "sampler": "sampler",
    "steps": "num_steps",
    "spacing": "timestep_spacing",
    "eta": "eta",
    "guidance": "guidance_scale",
}
"""Short flags for fields of `config.sample`: `--steps 20` is `--sample num_steps=20`."""


_OF_TRAINING = ("schedule", "model", "train", "optimizer", "task")
"""Sections of a training's config that no sweep has."""


def add_config(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--config` and `--config.FIELD=VALUE`."""
    parser.add_argument("--config", required=True, metavar="NAME", help=f"{what}: a name, a file or a module")
    parser.add_argument(
        "--config.FIELD", dest="config_fields", action="append", default=[], metavar="VALUE",
        help="another value of a field, as in --config.train.steps=2000 (repeatable)",
    )  # fmt: skip
    original = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):
        own, texts = split_config_fields(list(args or ()))
        parsed, rest = original(own, namespace)
        parsed.config_fields = texts
        return parsed, rest

    parser.parse_known_args = parse_known_args


def split_config_fields(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Returns (the other arguments, field → text) of a command line with `--config.FIELD=VALUE` in it.

    `--config.FIELD VALUE` is allowed too; `--config.FIELD` without a value means True, `--noconfig.FIELD` False.
    """
    others, texts = [], {}
    arguments = iter(range(len(argv)))
    for n in arguments:
        match = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", argv[n], re.DOTALL)
        if match is None:
            others.append(argv[n])
        elif match[3] is not None:
            texts[match[2]] = match[3]
        elif match[1] or n + 1 == len(argv) or argv[n + 1].startswith("--"):
            texts[match[2]] = str(not match[1])
        else:
            texts[match[2]] = argv[next(arguments)]
    return others, texts


def config(args: argparse.Namespace, *, schema: Section = SCHEMA) -> ml_collections.ConfigDict:
    """Returns the resolved config that `--config` and `--config.FIELD=VALUE` describe.

    Raises:
      UserError: no such config, a sweep's in place of a training's or the reverse, an unknown field, an invalid value.
    """
    found = config_files.load(args.config)
    sections = [name for name in _OF_TRAINING if name in found]
    if schema is SCHEMA and "axes" in found:
        raise UserError(f"--config={args.config} sets axes, as a sweep does: give it to `diffjax ablate`")
    if schema is not SCHEMA and "axes" not in found and sections:
        raise UserError(
            f"--config={args.config} sets {sections[0]} and no axes, as a training does: give it to `diffjax train`"
        )
    return resolve.parse(found, args.config_fields, schema=schema)


def add_workdir(parser: Any, *, required: bool = True) -> None:
    """Adds `--workdir`."""
    parser.add_argument("--workdir", type=path, required=required, help="a folder that `diffjax train` has written")


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Adds `--ema` and `--raw`, which choose among a run's parameters."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ema", type=float, metavar="DECAY", help="use the EMA of this decay (default: the first)")
    group.add_argument("--raw", action="store_true", help="use the parameters themselves, not an EMA")


def parameters(args: argparse.Namespace) -> float | bool | None:
    """Returns the choice of `add_parameters`, as `runs.load(ema=…)` takes it."""
    return False if args.raw else args.ema


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that change `config.sample`."""
    group = parser.add_argument_group("sampling", "fields of config.sample; the others are as in the run's config")
    group.add_argument("--sampler", metavar="NAME", help="ddim, ddpm, heun, …, or an import path")
    group.add_argument("--steps", metavar="S", help="the number of steps")
    group.add_argument("--spacing", metavar="NAME", help="the rule that spaces the timesteps: trailing, leading, …")
    group.add_argument("--eta", metavar="η", help="η of ddim, 0 … 1")
    group.add_argument("--guidance", metavar="SCALE", help="guidance scale: 0 no class, 1 unguided, > 1 guided")
    add_sample(group)


def add_sample(parser: Any, text: str = "any field of config.sample, as in num_steps=20,eta=1 (repeatable)") -> None:
    """Adds `--sample FIELD=VALUE,…`, described by `text`."""
    parser.add_argument("--sample", action="append", default=[], metavar="FIELD=VALUE,…", help=text)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds `--data FIELD=VALUE,…`."""
    parser.add_argument(
        "--data", action="append", default=[], metavar="FIELD=VALUE,…",
        help="other images: fields of config.data, as in image_key=x_test,label_key=y_test (repeatable)",
    )  # fmt: skip


def sampling(args: argparse.Namespace, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config with the fields of `config.sample` that the flags of `add_sampling` change.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    return resolve.parse(config, {f"sample.{field}": text for field, text in _sample_texts(args).items()})


def sample_options(args: argparse.Namespace, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the fields of `config.sample` that the flags of `add_sampling` set, as `Run.with_options` takes them.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    values = resolve.flatten(sampling(args, config).sample)
    return {field: values[field] for field in _sample_texts(args) if field in values}


def _sample_texts(args: argparse.Namespace) -> dict[str, str]:
    """Returns field → text of the flags of `add_sampling` that are given."""
    texts = {field: getattr(args, flag) for flag, field in SAMPLE_FLAGS.items() if getattr(args, flag) is not None}
    for text in args.sample:
        texts |= assignments("--sample", text)
    return texts


def data(args: argparse.Namespace, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config with the images that `--data` describes, none held out; without `--data`, the config itself.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    texts: dict[str, str] = {}
    for text in args.data:
        texts |= assignments("--data", text)
    if not texts:
        return config
    changed = resolve.parse(config, {f"data.{field}": text for field, text in texts.items()})
    return changed if "holdout" in texts else saved.with_data(changed, {})


def assignments(flag: str, text: str) -> dict[str, str]:
    """Returns field → text of "FIELD=VALUE,FIELD=VALUE"; commas within brackets and quotes belong to a value.

    Raises:
      UserError: a part without "=".
    """
    found = {}
    for part in _split(text):
        field, equals, value = part.partition("=")
        if not equals or not field.strip():
            raise UserError(f"{flag} {text}: {part!r} must be FIELD=VALUE")
        found[field.strip()] = value
    return found


def literals(flag: str, text: str) -> dict[str, Any]:
    """Returns `assignments` with texts parsed as Python literals (numbers, tuples, None); other texts are kept.

    Raises:
      UserError: as `assignments`.
    """
    return {field: _literal(value) for field, value in assignments(flag, text).items()}


def output_file(path: Path, suffix: str = "") -> Path:
    """Returns `path`, the value of `--out`, after it is checked that a file can be written there; writes nothing.

    Raises:
      UserError: a path that does not end in `suffix`, an existing folder, or no place to write to.
    """
    if not path.name.endswith(suffix):
        raise UserError(f"--out={path} must end in {suffix}")
    if path.is_dir():
        raise UserError(f"--out={path} must be a file; it is a folder")
    _check_writable(path.parent)
    return path


def output_folder(path: Path) -> Path:
    """Returns `path`, the value of `--out`, after it is checked that a folder can be written there; writes nothing.

    Raises:
      UserError: an existing file, or no place to write to.
    """
    _check_writable(path)
    return path


def _check_writable(folder: Path) -> None:
    """Checks that a folder, or the nearest existing one above it, can be written to.

    Raises:
      UserError: it cannot.
    """
    if files.in_bucket(folder):  # the lock, or the first object, shows whether it can be written
        return
    found = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    if not found.is_dir():
        raise UserError(f"cannot write to {folder}: {found} is not a folder")
    if not os.access(found, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {folder}: permission denied")


def path(text: str) -> Path:
    """Parses the path of a file or folder, on this machine or in a bucket (gs://…), as a `type=` of argparse."""
    try:
        return files.to_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def local_path(text: str) -> Path:
    """Parses the path of a file or folder on this machine, as a `type=` of argparse."""
    try:
        return files.local_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Parses a whole number ≥ 1, as a `type=` of argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be ≥ 1")
    return value


def nonnegative(text: str) -> float:
    """Parses a finite number ≥ 0, as a `type=` of argparse."""
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be ≥ 0 and finite")
    return value


def natural(text: str) -> int:
    """Parses a whole number ≥ 0, as a `type=` of argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} must be ≥ 0")
    return value


def seed(text: str) -> int:
    """Parses a seed, 0 … 2³² - 1, as a `type=` of argparse."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{value} must be within 0 … {2**32 - 1}")
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text) if text else None
    except (ValueError, SyntaxError):
        return text


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]
