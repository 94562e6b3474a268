"""Training with everything that `config.train` can ask for, and going on from its checkpoints."""

import json

import jax
import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.tasks import generation
from diffjax.training import run_config, setup
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.loop import train

FIELDS = {
    "data__resident": True,
    "data__flip": True,
    "model__num_classes": 10,
    "train__steps": 4,
    "train__checkpoint_every": 2,
    "train__log_every": 2,
    "train__batch_size": 32,
    "train__target": "v",
    "train__weighting": "min_snr",
    "train__loss": "huber",
    "train__hybrid": 0.001,
    "train__timesteps": "importance",
    "train__offset_noise": 0.1,
    "train__accumulate": 2,
    "train__steps_per_dispatch": 2,
    "train__ema_decays": (0.9, 0.5),
    "sample__sampler": "ddpm",
    "sample__variance": "learned_range",
}


@pytest.fixture
def config(tiny_config):
    return tiny_config(**FIELDS)


@pytest.mark.usefixtures("quick_compilation")
def test_everything_at_once(config, tmp_path):
    whole = train(config, tmp_path, progress=False)
    assert int(whole.step) == 4
    assert int(whole.history.count.sum()) == 4 * 32
    reports = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [2, 4]
    assert all(np.isfinite(report["loss"]) and report["skipped"] == 0 for report in reports)

    # From the checkpoint before the last one.
    for path in sorted((tmp_path / "checkpoints" / "4").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "checkpoints" / "4").rmdir()
    again = train(run_config.load(tmp_path), tmp_path, progress=False)
    for a, b in zip(*(jax.tree.leaves(state.replace(key=None)) for state in (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)

    experiment = setup.experiment(run_config.load(tmp_path))
    with Checkpoints(tmp_path) as checkpoints:
        _, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)
    predict = setup.predictor(experiment, params, **generation.labels(experiment.model, np.arange(4)))
    ((_, images),) = generation.images(experiment.steps, predict, (8, 8, 1), seed=0, num=4, batch_size=4)
    assert images.shape == (4, 8, 8, 1)


@pytest.mark.usefixtures("quick_compilation")
def test_too_many_steps_that_are_not_finite(tiny_config, tmp_path, monkeypatch):
    loss = generation.loss

    def spoilt(*args, **options):
        per_example = loss(*args, **options)
        return lambda params, batch, t, keys, key: per_example(params, batch, t, keys, key) / (t < 0)

    monkeypatch.setattr(generation, "loss", spoilt)
    words = (
        "loss or gradient of 3 steps in a row, up to step 3, are not finite .config.train.max_skipped is 2.; the last"
    )
    with pytest.raises(UserError, match=words):
        train(tiny_config(train__max_skipped=2), tmp_path, progress=False)
