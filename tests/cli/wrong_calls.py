"""Wrong calls of every command: each option in turn gets values that are wrong for it. `counts.py` prints how they end."""

import argparse
import collections
import importlib
from pathlib import Path

from diffjax.cli import main, options
from diffjax.cli.main import module_of

NUMBERS = {
    options.positive: ["x", "", "0", "-1", "1.5", "nan"],
    options.natural: ["x", "", "-1", "1.5", "nan"],
    options.seed: ["x", "", "-1", "1.5", str(2**32)],
    options.nonnegative: ["x", "", "-1", "nan", "inf"],
    int: ["x", "", "1.5", "nan"],
    float: ["x", "", "1e", "0.123456"],
}
TEXTS = {
    "config": ["nowhere.py", "no_such_config", "nowhere:get", ""],
    "sampler": ["nope", "", "nowhere:sampler", "7"],
    "steps": ["x", "0", "-3", "1.5", "nan", "1000000000"],
    "spacing": ["nope", "", "5"],
    "eta": ["x", "-0.1", "1.5", "nan", "inf"],
    "guidance": ["x", "nan", "inf", "2"],
    "sample": ["x", "num_steps", "num_steps=0", "nope=1", "=", "eta=", "clip=-1", "num_steps=(1,2)"],
    "data": ["x", "nope=1", "source=nope", "source=npz,path=nowhere.npz", "image_shape=7", "classes=(99,)"],
    "option": ["x", "nope=1", "="],
    "shard": ["x", "1", "3/2", "-1/2", "0/0"],
    "extractor": ["nope", "nowhere:extractor", "nowhere.safetensors", ""],
    "figures": ["nope", "", "nowhere:figure"],
    "label": ["x", "1.5", "99", "-1", ""],
    "operator": ["nope", "", "downsampling,factor=x", "downsampling,factor=3", "box,nope=1", "box,height", "a:b"],
    "method": ["nope", "", "mmps,iterations=x", "mmps,iterations=0", "mmps,nope=1", "mmps"],
    "methods": ["nope", "", "sampled,nope"],
    "push": ["nope", "", "a/b/c", "a/", "/b", "a b/c", "a/b?", "https://host/name", "a//b", "a/b c"],
    "ema": ["nan", "inf", "-1", "1.5", "2", "0"],
    "topology": ["nope", "", "v9:2x2", "v5e:0x2", "v5e"],
    "what": ["nope", "", "train,nope"],
    "dataset": ["nope", "", "a/b/c/d", "../x", "mnist:1.2", "mnist/nope", "cifar10,mnist", "MNIST ", "7"],
}
FIELDS = [
    "nope=1", "model.nope=1", "seed=-1", "seed=x", "schedule.name=nope", "schedule.num_timesteps=0",
    "schedule.beta_end=2.0", "model.base_channels=0", "model.dropout=1.5", "model.dtype=int8", "model.channel_mults=(0,)",
    "data.source=nope", "data.source=npz", "data.image_shape=(8,)", "data.holdout=-1", "data.resize=nope",
    "data.image_key=7", "data.random_flip=2.0", "data.num_workers=-1", "data=1", "task.name=nope", "optimizer.learning_rate=nan",
    "optimizer.learning_rate=inf", "optimizer.weight_decay=-1.0", "optimizer.name=nope", "train.batch_size=0",
    "train.steps=0", "train.steps=x", "train.ema_decays=(1.5,)", "train.target=nope", "train=1", "sample.eta=2.0",
    "sample.num_steps=0", "sample.timestep_spacing=nope", "sample.clip=-1",
]  # fmt: skip
"""Wrong values of a training config's fields."""

SWEEP_FIELDS = [
    "nope=1", "kind=nope", "num=0", "num=x", "seed=-1", "axes=1", "axes.nope=(1,)", "figures=nope", "extractor=nope",
    "batch_size=0", "base=nope", "num=-1", "num=1.5", "seed=x", "seed=1.5", "kind=", "axes=()", "figures=()", "kind=7",
    "extractor=7", "batch_size=x", "batch_size=1.5", "data=1",
]  # fmt: skip
"""Those of a sweep's."""

PATHS = ["s3://bucket/run", "/dev/null/below", "az://", "nowhere/at/all", "/dev/null"]
SUPERFLUOUS = ["--no-such-flag", "--no-such-flag=1", "-x", "superfluous", "a=b", "config.seed=1", "--=1", "-1"]


def cases(name, given):
    """Yields wrong arguments for a command: (what is wrong, arguments)."""
    parser = argparse.ArgumentParser()
    importlib.import_module(module_of(name)).add_arguments(parser)
    for action in parser._actions:
        flag = action.option_strings[-1] if action.option_strings else None
        if flag in (None, "--help", "--help-config"):
            continue
        rest = [argument for argument in given if not argument.startswith(f"{flag}=")]
        values = [*NUMBERS.get(action.type, ()), *TEXTS.get(action.dest, ())]
        if action.choices:
            values += ["nope", ""]
        if action.type in (options.path, options.local_path):
            values += PATHS[:3] if action.dest == "out" or name == "train" else PATHS
        for value in values:
            yield [*rest, f"{flag}={value}"]
        if action.nargs != 0:
            yield [*rest, flag]
        else:
            yield [*rest, f"{flag}=value"]
        if action.required:
            yield rest
        yield [*given, f"{flag}x=1"]
        if action.dest == "config":
            changes = SWEEP_FIELDS if name == "ablate" else FIELDS
            if name == "classifier":  # it reads the data alone
                changes = [change for change in FIELDS if not change.startswith(("schedule.", "model.", "sample."))]
            yield from ([*given, f"--config.{change}"] for change in changes)
    yield from ([*given, argument] for argument in SUPERFLUOUS)


def right_calls(workdir: Path, folder: Path) -> dict[str, list[str]]:
    """Returns command → arguments of a right call, which writes to `folder`."""
    run = f"--workdir={workdir}"
    return {
        "train": ["--config=digits", f"--workdir={folder / 'new'}"],
        "sample": [run, f"--out={folder / 'samples'}"],
        "evaluate": [run, f"--out={folder / 'evaluation.json'}"],
        "likelihood": [run, f"--out={folder / 'likelihood.json'}"],
        "moments": [run, f"--out={folder / 'moments.json'}"],
        "restore": [run, f"--out={folder / 'restored'}"],
        "ablate": ["--config=ablation_digits", run, f"--out={folder / 'sweep'}"],
        "report": [run, f"--out={folder / 'report.html'}"],
        "export": [run, f"--out={folder / 'exported'}"],
        "classifier": ["--config=digits", f"--out={folder / 'classifier.safetensors'}"],
        "compile-for": ["--config=digits", "--topology=local", f"--out={folder / 'costs.json'}"],
        "prepare": ["--dataset=mnist", f"--data-dir={folder}"],
    }


def count(name: str, given: list[str]) -> collections.Counter:
    """Makes all wrong calls of a command in this process, and returns how many end with each exit status.

    Raises:
      AssertionError: a call that is accepted, or whose error is not one line.
    """
    counts = collections.Counter()
    for arguments in cases(name, given):
        try:
            status = main.main([name, *arguments])
        except SystemExit as end:
            status = end.code
            if isinstance(status, str):  # what the interpreter prints, with the status 1
                assert status.startswith("error: "), arguments
                assert "\n" not in status, arguments
                status = 1
        assert status in (1, 2), arguments
        counts[status] += 1
    return counts
