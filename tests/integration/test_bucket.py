"""A run in a bucket: trained, resumed, sampled, measured, reported and exported like one on this machine."""

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


@pytest.fixture
def trained(tiny_config, storage, tmp_path, monkeypatch):
    """A workdir in a bucket, trained for 6 steps and then to 12."""
    monkeypatch.chdir(tmp_path)
    config = tiny_config(optimizer__lr_schedule="constant", train__sample_every=6)
    train(tiny_config(optimizer__lr_schedule="constant", train__steps=6), WORKDIR, progress=False)
    train(config, WORKDIR, progress=False)
    train(config, tmp_path / "local", progress=False)
    return tmp_path


def test_a_run_in_a_bucket(trained, storage):
    found, local = runs.load(WORKDIR), runs.load(trained / "local")
    assert found.step == local.step == 12
    jax.tree.map(np.testing.assert_array_equal, found.params, local.params)
    losses = [[report["loss"] for report in logging.read(workdir)] for workdir in (WORKDIR, trained / "local")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12
    names = {name.removeprefix("runs/tiny/") for name in storage.names() if name.startswith("runs/tiny/")}
    assert names >= {"config.json", "metrics.jsonl", "samples.png", "samples/step_0000006.png"}
    assert not any(name.endswith(("lock", ".part")) for name in names)

    for workdir in (WORKDIR, "local"):
        assert main(["sample", "--workdir", str(workdir), "--num", "8", "--batch-size", "4"]) == 0
    samples = np.load(io.BytesIO(files.to_path(f"{WORKDIR}/samples/samples.npz").read_bytes()))["arr_0"]
    np.testing.assert_array_equal(samples, np.load("local/samples/samples.npz")["arr_0"])
    assert not any("/parts/" in name for name in storage.names())

    assert main(["evaluate", "--workdir", WORKDIR, "--num", "8", "--figures", "kernel"]) == 0
    assert "kernel" in json.loads(files.to_path(f"{WORKDIR}/evaluation.json").read_text())["figures"]
    small = ["--num", "8", "--counts", "2", "--frames", "2", "--images", "8", "--searched", "8"]
    assert main(["report", "--workdir", WORKDIR, *small]) == 0
    assert "kernel" in files.to_path(f"{WORKDIR}/report.html").read_text()
    assert main(["export", "--workdir", WORKDIR, "--out", "exported"]) == 0
    with pytest.raises(UserError, match=r"'gs://bucket/exported' must be on this machine"):
        interop.export("gs://bucket/exported", found)

    assert sorted(path.name for path in trained.iterdir()) == ["exported", "local"]


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
