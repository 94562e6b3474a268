"""Wrong calls of every command: each option in turn gets values that are wrong for it."""

import argparse
import importlib

import pytest

from diffjax.cli import launch, main, options

NUMBERS = {
    options.positive: ["x", "", "0", "-1", "1.5", "nan"],
    options.natural: ["x", "", "-1", "1.5", "nan"],
    options.seed: ["x", "", "-1", "1.5", str(2**32)],
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
    "methods": ["nope", "", "sampled,nope"],
}
PATHS = ["s3://bucket/run", "/dev/null/below", "nowhere/at/all"]


def cases(name, given):
    """Yields wrong arguments for a command: (what is wrong, arguments)."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"diffjax.cli.{name}").add_arguments(parser)
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


@pytest.fixture
def calls(workdir, tmp_path):
    """command → arguments of a right call."""
    run = f"--workdir={workdir}"
    (tmp_path / "out").mkdir()
    return {
        "train": ["--config=digits", f"--workdir={tmp_path / 'new'}"],
        "sample": [run, f"--out={tmp_path / 'samples'}"],
        "evaluate": [run, f"--out={tmp_path / 'evaluation.json'}"],
        "likelihood": [run, f"--out={tmp_path / 'likelihood.json'}"],
        "restore": [run, f"--out={tmp_path / 'restored'}"],
        "ablate": ["--config=ablation_digits", run, f"--out={tmp_path / 'sweep'}"],
        "report": [run, f"--out={tmp_path / 'report.html'}"],
        "export": [run, f"--out={tmp_path / 'exported'}"],
        "classifier": ["--config=digits", f"--out={tmp_path / 'classifier.safetensors'}"],
        "prepare": ["--dataset=mnist", f"--data-dir={tmp_path}"],
    }


@pytest.mark.parametrize("name", main.COMMANDS)
def test_wrong_calls_end_in_one_line(calls, name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(launch, "start", lambda **_: None)
    monkeypatch.chdir(tmp_path)
    wrong = list(cases(name, calls[name]))
    before = sorted(tmp_path.rglob("*"))
    accepted = []
    for arguments in wrong:
        try:
            status = main.main([name, *arguments])
        except SystemExit as end:
            status = end.code
            if isinstance(status, str):  # what the interpreter prints, with the status 1
                assert status.startswith("error: "), arguments
                assert "\n" not in status, arguments
                status = 1
        if status not in (1, 2):
            accepted.append(arguments)
    capsys.readouterr()
    assert not accepted, accepted
    assert sorted(tmp_path.rglob("*")) == before
    assert len(wrong) >= 8
