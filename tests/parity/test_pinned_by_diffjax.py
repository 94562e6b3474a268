"""The full loops that diffusers pins in its own tests, by tables: schedule, grid and sampler come from the config alone.

A loop in NumPy runs the rows, since some of diffusers' loops replace the state by the network's input (`scaling`) and
all prescribe the noise; that `dj.sample` is the same loop is tested in `test_sampling`. Everything is float64, so the
sums are compared with those of diffusers' formulas in float64.
"""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from pinned_loops import network, numbered_noise, numbered_sample, run_diffusers  # noqa: E402
from pinned_values import RECORDS  # noqa: E402

from diffjax import samplers, schedules, timesteps  # noqa: E402
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
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
)
TWO_CALLS = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
NOT_HERE = {
    "IPNDMScheduler": "in test_sigma_solvers, since its second pass goes on with the history of the first",
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


def table_of(record, folder):
    """Returns (schedule, table, the level at which the whole loop starts, target, fields of the clipping)."""
    if record.scheduler in SPECIAL:
        return SPECIAL[record.scheduler](record)
    found, schedule = read(record, folder)
    sample = {"sampler": "ddpm" if record.scheduler.startswith("DDPM") else "ddim"} | found.sample
    spacing, sampler = timesteps.SPACINGS[sample["timestep_spacing"]], samplers.SAMPLERS[sample["sampler"]]
    total = schedule.num_timesteps
    given = {"schedule": schedule, "num_timesteps": total, "num_steps": record.num_steps or total}
    whole = call(spacing, given, {name: sample[name] for name in options_of(spacing) if name in sample})
    fields = found.sample | found.preferred
    options = {name: value for name, value in fields.items() if name in options_of(sampler)}
    skipped = record.start // (2 if record.scheduler in TWO_CALLS else 1)
    if skipped and record.scheduler == "DPMSolverSinglestepScheduler":
        table = started_late(schedule, whole, skipped, options)
    elif skipped and record.scheduler == "LMSDiscreteScheduler":
        # The order is that of the step's place in the whole, with weights for calls that were not made.
        table = samplers.lms(schedule, whole)[skipped:]
        made = np.arange(4 - 1)[None, :] < np.arange(table.num_rows)[:, None]
        table = dataclasses.replace(table, eps_history=np.where(made, table.eps_history, 0.0))
    else:
        table = call(sampler, {"schedule": schedule, "grid": whole[skipped:]}, options)
    table = samplers.with_network_times(table, schedule, sample.get("network_times", "exact"))
    return schedule, table, whole[0], found.target, found.sample


def started_late(schedule, grid, skipped, options):
    """Returns the rows after the skipped ones; the orders stay, but the first has nothing before it and has order 1."""
    whole = samplers.dpm_solver_pp_singlestep(schedule, grid, **options)[skipped:]
    first = samplers.dpm_solver_pp(schedule, grid[skipped : skipped + 2], order=1)

    def joined(name):
        column = np.array(getattr(whole, name))
        head = np.asarray(getattr(first, name))
        column[0] = 0.0 if name in ("x0_history", "eps_history") else head[0]
        return column

    return dataclasses.replace(whole, **{name: joined(name) for name in ("a", "b", "c", "x0_history", "eps_history")})


def ddim_inverse(record):
    """Encodes: steps of ⌊T/S⌋ upwards, with the network called where they end, and ε̂ kept after clipping."""
    schedule = schedules.linear(1000, beta_start=record.config["beta_start"], beta_end=record.config["beta_end"])
    first = -1 if record.config.get("set_alpha_to_one", True) else 0
    grid = np.append(first, timesteps.leading(1000, record.num_steps)[-2::-1])
    table = samplers.probability_flow(schedule, grid, network_at="destination")
    table = dataclasses.replace(table, rederive_eps=False)
    return schedule, table, grid[0], TARGETS[record.config.get("prediction_type", "epsilon")], {"clip": 1.0}


def dpm_inverse(record):
    """Encodes by DPM-Solver++ from the first timestep to the last."""
    schedule = schedules.linear(1000, beta_start=record.config["beta_start"], beta_end=record.config["beta_end"])
    if record.config.get("use_karras_sigmas"):
        grid = timesteps.karras(schedule, record.num_steps)[-2::-1]
        grid = np.append(np.maximum(grid, 0.0), grid[-1])
    else:
        grid = np.append(np.linspace(0, 999, record.num_steps + 1).round()[:-1], 999).astype(np.int32)
    table = samplers.dpm_solver_pp(schedule, grid, order=record.config["solver_order"])
    table = samplers.with_network_times(table, schedule, "nearest")
    return schedule, table, grid[0], TARGETS[record.config["prediction_type"]], clip_of(record)


def edm(record):
    """EDM's preconditioning on the levels of Karras et al. 2022; the last step stays at the lowest level or ends at 0."""
    schedule = schedules.edm(1000, sigma_min=record.config["sigma_min"], sigma_max=record.config["sigma_max"])
    grid = timesteps.karras(schedule, record.num_steps)
    if record.config.get("final_sigmas_type") == "sigma_min":
        grid = np.append(grid[:-1], grid[-2])
    table = samplers.dpm_solver_pp if "DPM" in record.scheduler else samplers.ddim
    return schedule, table(schedule, grid[record.start :]), grid[0], "edm", clip_of(record)


def clip_of(record):
    if not record.config.get("thresholding"):
        return {"clip": None}
    ratio, largest = record.config["dynamic_thresholding_ratio"], record.config["sample_max_value"]
    return {"clip": "dynamic", "percentile": ratio, "limit": 1.0, "largest": largest}


TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SPECIAL = {
    "DDIMInverseScheduler": ddim_inverse,
    "DPMSolverMultistepInverseScheduler": dpm_inverse,
    "EDMEulerScheduler": edm,
    "EDMDPMSolverMultistepScheduler": edm,
}


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


def predictions(record, target, x, network_input, signal, noise, t):
    """Returns (x̂0, ε̂) at the state x."""
    if target == "edm":
        data, sigma, state = 0.5, noise / signal, x / signal
        scale = np.sqrt(sigma**2 + data**2)
        output = network(state / scale if record.scaling == "network" else state, np.log(sigma) / 4)
        sign = -1 if record.config.get("prediction_type") == "v_prediction" else 1
        x0 = data**2 / scale**2 * state + sign * sigma * data / scale * output
        return x0, (x - signal * x0) / noise
    output = network(network_input, t)
    if target == "v":
        return signal * x - noise * output, signal * output + noise * x
    return (x - noise * output) / signal, output


def run_rows(record, table, x, target, sample, draws):
    """Runs the rows; where the loop replaces the state, the network's input, x, becomes the state x/√ᾱ at each call.

    The second call of a step starts from the state that the first one has kept, which is not replaced again.
    """
    replaced = record.scheduler in OF_SIGMA and record.scaling == "state"
    x0s, epss = [], []
    for row in range(table.num_rows):
        signal, noise = table.signal[row], table.noise[row]
        kept, state = x, signal * x if replaced else x
        x0, eps = predictions(record, target, state, kept, signal, noise, float(table.t_net[row]))
        clipped = threshold(sample, x0)
        if clipped is not x0 and table.rederive_eps:
            eps = (state - signal * clipped) / noise
        start = state if row == 0 or table.lands[row - 1] else kept
        x = table.a[row] * start + table.b[row] * clipped + table.c[row] * eps
        for weights, history in ((table.x0_history[row], x0s), (table.eps_history[row], epss)):
            x = x + sum(weight * old for weight, old in zip(weights, history, strict=False))
        if row in draws:
            x = x + table.d[row] * draws[row]
        x0s, epss = [clipped, *x0s], [eps, *epss]
    return x


def own_draws(table, increments):
    """Returns each row's own z from the increments of a Brownian motion, both of which begin where a step begins."""
    draws = dict(increments)
    for row in range(1, table.num_rows, 2):
        here, middle = (table.noise[k] / table.signal[k] for k in (row - 1, row))
        part = (here - middle) / (here - table.noise_to[row] / table.signal_to[row])
        draws[row] = (increments[row] - np.sqrt(part) * increments[row - 1]) / np.sqrt(1 - part)
    return draws


def run_loop(record, folder):
    """Returns the sum of |x| at the end of a record's loop."""
    schedule, table, first, target, sample = table_of(record, folder)
    x = numbered_sample(record.shape)
    of_sigma = record.scheduler in OF_SIGMA
    if record.scheduler in OF_SIGMA:
        alpha_bar = schedule.alpha_bar_at(first)
        scale = 1.0 if target == "edm" else np.sqrt(1 - alpha_bar)
        x = x * table.signal[0] * (scale / np.sqrt(alpha_bar) if record.scaled_start else 1.0)
    elif record.noised:
        x = table.signal[0] * x
    if record.noised:
        x = x + table.noise[0] * numbered_noise(record.shape)
    draws = run_diffusers(record).draws if record.noise else {}
    if record.noise == "brownian":
        draws = own_draws(table, draws)
    x = run_rows(record, table, x, target, sample, draws)
    return np.abs(x / table.signal_to[-1] if of_sigma else x).sum()


def run_batch(record, folder):
    """Returns the sum of |x| over three batches that make one step from t = 0, 1 and 2."""
    found, schedule = read(record, folder)
    stride = schedule.num_timesteps // (record.num_steps or schedule.num_timesteps)
    sampler = samplers.ddpm if record.scheduler.startswith("DDPM") else samplers.ddim
    total = 0.0
    for t, shift in enumerate((0.0, 0.1, -0.1)):
        table = sampler(schedule, np.array([t, max(t - stride, -1)]))
        table = dataclasses.replace(table, rederive_eps=sampler is samplers.ddpm)
        x = numbered_sample(record.shape) + shift
        total += np.abs(run_rows(record, table, x, found.target, found.sample, {})).sum()
    return total


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.test)
def test_pinned_loop(record, tmp_path):
    if record.scheduler in NOT_HERE:
        pytest.skip(NOT_HERE[record.scheduler])
    run = run_batch if record.kind == "batch" else run_loop
    # 3e-9 is the rounding of states that are thousands of times larger than their differences. torchsde's Brownian
    # motion is in float32, and depends in its last bits on the processor.
    rtol = 1e-6 if record.scheduler == "DPMSolverSDEScheduler" else 1e-8
    np.testing.assert_allclose(run(record, tmp_path), record.float64_sum, rtol=rtol)
