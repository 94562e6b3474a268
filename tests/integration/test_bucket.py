"""A run in a bucket: trained, resumed, sampled, measured, reported and exported like one on this machine."""

import contextlib
import csv
import io
import json

import jax
import numpy as np
import pytest

from diffjax import files, interop, runs
from diffjax.cli.main import main
from diffjax.errors import UserError
from diffjax.runs.train import train
from diffjax.training import logging

WORKDIR = "gs://bucket/runs/tiny"


@pytest.fixture(scope="module")
def trained(tiny_config, storage, tmp_path_factory):
    """The current folder, with a workdir `local`; in a bucket the same training was stopped after step 2 of 4."""
    options = {"optimizer__lr_schedule": "constant", "train__checkpoint_every": 2, "train__sample_every": 2}
    folder = tmp_path_factory.mktemp("bucket")
    with contextlib.chdir(folder):
        train(tiny_config(**options, train__steps=2), WORKDIR, progress=False)
        train(tiny_config(**options, train__steps=4), WORKDIR, progress=False)
        train(tiny_config(**options, train__steps=4), "local", progress=False)
        yield folder
        assert {path.name for path in folder.iterdir()} <= {"local", "exported"}


def test_a_run_in_a_bucket_equals_one_on_this_machine(trained, storage):
    found, local = runs.load(WORKDIR), runs.load("local")
    assert found.step == local.step == 4
    jax.tree.map(np.testing.assert_array_equal, found.params, local.params)
    losses = [[report["loss"] for report in logging.read(workdir)] for workdir in (WORKDIR, "local")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
    names = {name.removeprefix("runs/tiny/") for name in storage.names() if name.startswith("runs/tiny/")}
    assert names >= {"config.json", "metrics.jsonl", "samples.png", "samples/step_0000002.png"}
    assert not any(name.endswith(("lock", ".part")) for name in names)

    for workdir in (WORKDIR, "local"):
        assert main(["sample", "--workdir", workdir, "--num", "8", "--batch-size", "8"]) == 0
    samples = np.load(io.BytesIO(files.to_path(f"{WORKDIR}/samples/samples.npz").read_bytes()))["arr_0"]
    np.testing.assert_array_equal(samples, np.load("local/samples/samples.npz")["arr_0"])
    assert not any("/parts/" in name for name in storage.names())

    assert main(["export", "--workdir", WORKDIR, "--out", "exported"]) == 0
    with pytest.raises(UserError, match=r"'gs://bucket/exported' must be on this machine"):
        interop.export("gs://bucket/exported", found)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_commands_write_to_a_workdir_in_a_bucket():
    workdir = files.to_path(WORKDIR)
    assert main(["evaluate", "--workdir", WORKDIR, "--num", "8", "--figures", "kernel"]) == 0
    assert "kernel" in json.loads((workdir / "evaluation.json").read_text())["figures"]
    assert main(["likelihood", "--workdir", WORKDIR, "--num", "4", "--split", "train"]) == 0
    assert json.loads((workdir / "likelihood.json").read_text())["num"] == 4
    small = ["--num", "8", "--counts", "2", "--frames", "2", "--images", "8", "--searched", "8"]
    assert main(["report", "--workdir", WORKDIR, *small]) == 0
    assert "kernel" in (workdir / "report.html").read_text()
    assert (workdir / "report" / "samples.png").exists()


@pytest.mark.slow
def test_a_sweep_over_a_run_in_a_bucket(trained, capsys):
    axes = (("S", (("2", {"num_steps": 2}), ("3", {"num_steps": 3}))),)
    config = {"kind": "quality", "num": 20, "figures": ("kernel",), "axes": axes, "sample": {"sampler": "ddim"}}
    (trained / "exported").mkdir(exist_ok=True)
    (trained / "exported" / "sweep.py").write_text(
        f"from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({config!r})\n"
    )
    tables = []
    for workdir in (WORKDIR, "local"):
        out = trained / "exported" / "sweeps" / workdir.replace("/", "_")
        assert main(["ablate", "--config", "exported/sweep.py", "--workdir", workdir, "--out", str(out)]) == 0
        tables.append([{**row, "seconds": ""} for row in csv.DictReader((out / "table.csv").open())])
    assert tables[0] == tables[1]
    with pytest.raises(SystemExit):
        main(["ablate", "--config", "exported/sweep.py", "--workdir", WORKDIR, "--out", "gs://bucket/sweep"])
    assert "'gs://bucket/sweep' must be on this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_in_a_bucket_restores(tiny_config, storage, trained):
    fields = {
        "task__name": "super_resolution", "data__degradation__kinds": ("bicubic",), "data__degradation__factor": 2,
        "data__holdout": 0.2, "train__steps": 4, "train__final_pictures": False,
    }  # fmt: skip
    for workdir in ("gs://bucket/runs/restorer", "exported/restorer"):
        train(tiny_config(**fields), workdir, progress=False)
        assert main(["restore", "--workdir", workdir, "--num", "4", "--sample", "num_steps=2"]) == 0
    restored = np.load(io.BytesIO(files.to_path("gs://bucket/runs/restorer/restored/restored.npz").read_bytes()))[
        "arr_0"
    ]
    np.testing.assert_array_equal(restored, np.load("exported/restorer/restored/restored.npz")["arr_0"])


@pytest.mark.slow
def test_damaged_checkpoints_in_a_bucket_are_set_aside(tiny_config, storage):
    workdir = "gs://bucket/runs/damaged"
    config = tiny_config(train__steps=8, train__final_pictures=False)
    train(config, workdir, progress=False)
    for name in [name for name in storage.names() if name.startswith("runs/damaged/checkpoints/8/params/")]:
        if "/d/" in name:
            files.write(f"gs://bucket/{name}", b"damaged")
    with pytest.warns(UserWarning, match="using gs://bucket/runs/damaged/checkpoints/4 instead"):
        state = train(config, workdir, progress=False)
    assert int(state.step) == 8
    assert any(name.startswith("runs/damaged/damaged/8/") for name in storage.names())
    assert runs.load(workdir).step == 8
