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
    "push": ["nope", "", "a/b/c"],
    "topology": ["nope", "", "v9:2x2", "v5e:0x2", "v5e"],
    "what": ["nope", "", "train,nope"],
}
PATHS = ["s3://bucket/run", "/dev/null/below", "nowhere/at/all"]


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
            values += PATHS[:2] if action.dest == "out" or name == "train" else PATHS
        for value in values:
            yield [*rest, f"{flag}={value}"]
        if action.nargs != 0:
            yield [*rest, flag]
        else:
            yield [*rest, f"{flag}=value"]
        if action.required:
            yield rest
    yield [*given, "--no-such-flag"]
    yield [*given, "superfluous"]


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
