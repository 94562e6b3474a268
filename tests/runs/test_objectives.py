"""Training with everything that `config.train` offers, and resuming from its checkpoints."""

import json
import shutil

import jax
import numpy as np
import pytest

from diffjax import runs
from diffjax.errors import UserError
from diffjax.runs import saved
from diffjax.runs.train import train
from diffjax.tasks.generation import Generation

FIELDS = {
    "data__on_device": True,
    "data__random_flip": True,
    "model__num_classes": 10,
    "train__steps": 4,
    "train__checkpoint_every": 2,
    "train__log_every": 2,
    "train__batch_size": 16,
    "train__target": "v",
    "train__loss_weighting": "min_snr",
    "train__loss_norm": "huber",
    "train__vlb_weight": 0.001,
    "train__timestep_sampling": "importance",
    "train__offset_noise": 0.1,
    "train__grad_accumulation_steps": 2,
    "train__steps_per_call": 2,
    "train__ema_decays": (0.9, 0.5),
    "sample__sampler": "ddpm",
    "sample__variance": "learned_range",
}


@pytest.mark.slow
def test_everything_at_once(tiny_config, tmp_path):
    whole = train(tiny_config(**FIELDS), tmp_path, progress=False)
    assert int(whole.step) == 4
    assert int(whole.history.count.sum()) == 4 * 16
    reports = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [2, 4]
    assert all(np.isfinite(report["loss"]) and report["skipped"] == 0 for report in reports)
    assert {path.name for path in tmp_path.glob("*.png")} == {"samples.png", "denoising.png"}

    # From the checkpoint before the last one.
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    again = train(saved.load(tmp_path), tmp_path, progress=False)
    for a, b in zip(*(jax.tree.leaves(state.replace(key=None)) for state in (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)

    run = runs.load(tmp_path)
    assert (run.step, run.ema) == (4, 0.9)
    assert run.sample(4, batch_size=4).shape == (4, 8, 8, 1)


FLOW = {
    "schedule__name": "flow",
    "train__target": "flow",
    "train__level_mean": 0.0,
    "train__level_std": 1.0,
    "sample__timestep_spacing": "flow",
}
EDM = {
    "schedule__name": "edm",
    "train__target": "edm",
    "train__sigma_data": 0.75,
    "train__loss_weighting": "edm",
    "sample__timestep_spacing": "karras",
    "sample__sampler": "heun",
}


@pytest.mark.slow
@pytest.mark.parametrize("fields", [FLOW, EDM], ids=["flow", "edm"])
def test_rectified_flow_and_edm(tiny_config, tmp_path, fields):
    config = tiny_config(
        **fields,
        train__timestep_sampling="log_normal",
        train__steps=100,
        train__checkpoint_every=100,
        train__log_every=50,
        train__final_pictures=False,
        data__on_device=True,
    )
    train(config, tmp_path, progress=False)
    reports = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert reports[-1]["loss"] < 0.9 * reports[0]["loss"]
    run = runs.load(tmp_path)
    assert run.config.sample.timestep_spacing in ("flow", "karras")
    images = run.sample(8, batch_size=8)
    assert images.shape == (8, 8, 8, 1)
    # The digits' border is black, as even a briefly trained network knows.
    assert np.mean(images[:, :, 0]) < np.mean(images[:, 2:6, 3:5])


def test_too_many_steps_that_are_not_finite(tiny_config, tmp_path, monkeypatch):
    def loss(self):
        return lambda params, batch, t, keys, dropout_key: params["conv_out"]["bias"].sum() / (t < 0)

    monkeypatch.setattr(Generation, "loss", loss)
    words = (
        "loss or gradient of 3 steps in a row, up to step 3, are not finite "
        r"\(config.train.max_nonfinite_steps is 2\); there is no checkpoint"
    )
    with pytest.raises(UserError, match=words), pytest.warns(UserWarning, match="the step is skipped"):
        train(tiny_config(train__max_nonfinite_steps=2), tmp_path, progress=False)
