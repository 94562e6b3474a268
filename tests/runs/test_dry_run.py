"""Programs compiled for devices that are not used: their costs against what is known of them."""

import jax
import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.runs import build, dry_run, resolve
from diffjax.runs.chips import CHIPS, bound


@pytest.fixture
def config(tiny_config):
    return resolve.resolve(tiny_config(train__batch_size=16))


def test_training_step_exchanges_gradients_once(config):
    devices = jax.devices()[:4]
    cost = dry_run.read(dry_run.training(config, devices))
    num_params = sum(x.size for x in jax.tree.leaves(build.params_shape(build.task(config))))
    assert set(cost.collectives) == {"all-reduce"}
    size = cost.collectives["all-reduce"][1]
    assert 4 * num_params <= size < 4 * num_params + 1000  # and the losses
    assert cost.exchanged == 2 * size
    # Parameters, one average and Adam's two moments.
    assert 16 * num_params < cost.arguments < 16 * num_params + 100_000
    assert cost.peak >= cost.arguments


def test_sampler_exchanges_nothing(config):
    cost = dry_run.read(dry_run.sampling(config, jax.devices()[:4], 8))
    assert cost.collectives == {}
    assert cost.flops > 0


@pytest.mark.parametrize("task", ["super_resolution", "regression"])
def test_tasks_that_restore(tiny_config, task):
    fields = {"task__name": task, "data__degradation__kinds": ("bicubic",), "data__degradation__factor": 2}
    config = resolve.resolve(tiny_config(train__batch_size=8, **fields))
    for lowered in (dry_run.training(config, jax.devices()[:2]), dry_run.sampling(config, jax.devices()[:2], 4)):
        assert lowered.as_text()


def test_the_largest_batch_lies_on_the_line_of_two_peaks(config, monkeypatch):
    """A program needs 1000 bytes, and 10 more for each image on a device."""
    asked = []

    def read(changed):
        asked.append(changed)
        return at._replace(peak=1000 + 10 * changed.train.batch_size // 2)

    at = dry_run.Cost(0.0, 0, 0, 1080, 0.0, 0.0, 0.0, 0, 0, {})  # 16 images on 2 devices
    monkeypatch.setattr(dry_run, "training", lambda changed, devices: changed)
    monkeypatch.setattr(dry_run, "read", read)
    devices = jax.devices()[:2]
    assert dry_run.largest_batch(config, devices, at, 2000) == 200
    assert dry_run.largest_batch(config, devices, at, 900) == 0
    assert {changed.train.batch_size for changed in asked} == {8}


def test_the_slowest_resource_bounds_the_time():
    chip = CHIPS["TPU v5 lite"]
    found = bound(chip, flops=1.97e12, num_bytes=819e9, exchanged=1e9)
    np.testing.assert_allclose(found, (0.01, 1.0, 0.01))
    assert (found.seconds, found.limit) == (1.0, "memory")


@pytest.mark.parametrize("name", ["v5e", "5e:2x2", "v5e:2x", "tpu", ""])
def test_topologies_that_are_none(name):
    with pytest.raises(UserError, match="must be GENERATION:SHAPE"):
        dry_run.topology(name)


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(dry_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs libtpu to be compiled: pip install '\.\[tpu\]'"):
        dry_run.topology("v5e:2x2")


@pytest.mark.tpu
def test_tpu(config):
    """One test, since libtpu serves one process at a time."""
    pytest.importorskip("libtpu", reason="libtpu is not installed (pip install '.[tpu]')")
    counts = {"v5e:1x1": 1, "v5e:2x4": 8, "v4:2x2x1": 4, "v6e:2x2": 4, "v5p:2x2x1": 4, "v5e:16x16": 256}
    for name, count in counts.items():
        devices = dry_run.topology(name)
        assert len(devices) == count
        assert dry_run.chip(devices) is not None
    for name in ("v9:2x2", "v5e:3x5"):
        with pytest.raises(UserError, match="cannot be compiled for"):
            dry_run.topology(name)
    devices = dry_run.topology("v5e:2x2")
    cost = dry_run.read(dry_run.training(config, devices))
    assert [count for count, _ in cost.collectives.values()] == [1]
    assert cost.transposes == 0
    assert 0 < cost.bound(dry_run.chip(devices)).seconds < 0.01
