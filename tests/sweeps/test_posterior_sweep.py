"""The kind of sweep `posterior`."""

import csv

import pytest

from diffjax.runs import config_files, resolve
from diffjax.runs.train import train
from diffjax.sweeps.compute import compute
from diffjax.sweeps.config import SWEEP


@pytest.fixture
def workdir(made_once, tiny_config):
    config = tiny_config(train__steps=4, train__checkpoint_every=4, train__final_pictures=False)
    return made_once("posterior", lambda path: train(config, path, progress=False))


def test_method_by_noise(workdir, tmp_path):
    config = config_files.load("ablations/posterior")
    axes = (
        ("σ_y", (("0.1", {"noise_std": 0.1}), ("1", {"noise_std": 1.0}))),
        ("method", (("ddrm", {"method": "ddrm", "method_options": {"eta": 0.5}, "num_steps": 2}),)),
    )
    config.update(axes=axes, num=8, num_samples=2)
    compute(resolve.resolve(config, section=SWEEP), workdir=workdir, out=tmp_path / "out")
    with (tmp_path / "out" / "table.csv").open() as file:
        low, high = csv.DictReader(file)
    assert float(low["residual"]) < float(high["residual"])
    assert float(low["psnr_of_mean"]) > float(low["psnr"])
    assert low["num"] == "8"
