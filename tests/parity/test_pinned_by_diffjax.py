"""The full loops that diffusers pins in its own tests, by tables: schedule, grid and sampler come from the config alone.

A loop in NumPy runs the rows, since some of diffusers' loops replace the state by the network's input (`scaling`) and
all prescribe the noise; that `dj.sample` is the same loop is tested in `test_sampling`. Everything is float64, so the
sums are compared with those of diffusers' formulas in float64.
"""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from pinned_loops import network, numbered_noise, numbered_sample, run_diffusers  # noqa: E402
from pinned_values import RECORDS  # noqa: E402

from diffjax import samplers, timesteps  # noqa: E402
from diffjax.fields import options as options_of  # noqa: E402
from diffjax.interop import diffusers_schedulers, imported  # noqa: E402
from diffjax.registry import call  # noqa: E402

# Their state is x/√ᾱ, not x.
OF_SIGMA = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
TWO_CALLS = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
NOT_HERE = {
    "LCMScheduler": "consistency models are not denoisers",
    "TCDScheduler": "consistency models are not denoisers",
    "CMStochasticIterativeScheduler": "consistency models are not denoisers",
    "UnCLIPScheduler": "its variance is no option of ddpm",
    "ScoreSdeVeScheduler": "its corrector scales the step by the norm of the output, so it is not affine",
}


def read(record, folder):
    """Returns the scheduler's config as this library reads it, and its schedule."""
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": record.scheduler, **record.config}))
    found = diffusers_schedulers.read_scheduler(path)
    return found, imported.schedule(found.schedule_section)


def table_of(record, found, schedule):
    """Returns the table of the loop, which may start in the middle, and the level at which the whole starts."""
    sample = {"sampler": "ddpm" if record.scheduler.startswith("DDPM") else "ddim"} | found.sample
    spacing, sampler = timesteps.SPACINGS[sample["timestep_spacing"]], samplers.SAMPLERS[sample["sampler"]]
    total = schedule.num_timesteps
    given = {"schedule": schedule, "num_timesteps": total, "num_steps": record.num_steps or total}
    grid = call(spacing, given, {name: sample[name] for name in options_of(spacing) if name in sample})
    options = {name: value for name, value in found.preferred.items() if name in options_of(sampler)}
    first = grid[0]
    grid = grid[record.start // (2 if record.scheduler in TWO_CALLS else 1) :]
    table = call(sampler, {"schedule": schedule, "grid": grid}, options)
    return samplers.with_network_times(table, schedule, sample.get("network_times", "exact")), first


def threshold(sample, x0):
    """Clips x̂0 as the fields of `config.sample` say."""
    clip = sample["clip"]
    if clip is None:
        return x0
    if clip != "dynamic":
        return np.clip(x0, -clip, clip)
    s = np.quantile(np.abs(x0), sample["percentile"], axis=tuple(range(1, x0.ndim)), keepdims=True)
    s = np.minimum(np.maximum(s, sample["limit"]), np.inf if sample["largest"] is None else sample["largest"])
    return np.clip(x0, -s, s) * sample["limit"] / s


def run_rows(table, x, target, sample, draws, *, replaced):
    """Runs the rows; with `replaced`, the network's input, x, becomes the state x/√ᾱ at each call.

    The second call of a step starts from the state that the first one has kept, which is not replaced again.
    """
    x0s, epss = [], []
    for row in range(table.num_rows):
        signal, noise = table.signal[row], table.noise[row]
        output = network(x, float(table.t_net[row]))
        kept = x
        x = signal * x if replaced else x
        x0 = signal * x - noise * output if target == "v" else (x - noise * output) / signal
        clipped = threshold(sample, x0)
        eps = signal * output + noise * x if target == "v" else output
        if clipped is not x0 and table.rederive_eps:
            eps = (x - signal * clipped) / noise
        start = x if row == 0 or table.lands[row - 1] else kept
        x = table.a[row] * start + table.b[row] * clipped + table.c[row] * eps
        for weights, history in ((table.x0_history[row], x0s), (table.eps_history[row], epss)):
            x = x + sum(weight * old for weight, old in zip(weights, history, strict=False))
        if row in draws:
            x = x + table.d[row] * draws[row]
        x0s, epss = [clipped, *x0s], [eps, *epss]
    return x


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.test)
def test_pinned_loop(record, tmp_path):
    if record.scheduler in NOT_HERE:
        pytest.skip(NOT_HERE[record.scheduler])
    found, schedule = read(record, tmp_path)
    table, first = table_of(record, found, schedule)
    x = numbered_sample(record.shape)
    of_sigma = record.scheduler in OF_SIGMA
    if of_sigma:
        alpha_bar = schedule.alpha_bar_at(first)
        x = x * np.sqrt((1 - alpha_bar) / alpha_bar) * table.signal[0]
    else:
        x = x * (table.signal[0] if record.noised else 1.0)
    if record.noised:
        x = x + table.noise[0] * numbered_noise(record.shape)
    draws = run_diffusers(record).draws if record.noise else {}
    replaced = of_sigma and record.scaling == "state"
    x = run_rows(table, x, found.target, found.sample, draws, replaced=replaced)
    total = np.abs(x / table.signal_to[-1] if of_sigma else x).sum()
    np.testing.assert_allclose(total, record.float64_sum, rtol=1e-9)
