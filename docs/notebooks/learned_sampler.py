# %% [markdown]
# # A sampler that is learned
#
# A sampler of diffjax is a table with one row for each network call, and `dj.sample` is differentiable. So the table
# can be fitted. Here DDIM in 5 steps is fitted to where 100 steps of DPM-Solver++ lead from the same noise, for the
# pretrained digits. It takes about two minutes on 2 CPU cores; docs/learn.md has the whole comparison.

# %%
from pathlib import Path

import numpy as np

import diffjax as dj
from diffjax import learn, samplers, timesteps
from diffjax.data.pixels import to_uint8
from diffjax.data.sources import SOURCES
from diffjax.metrics.frechet import feature_distance

root = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "experiments").is_dir())
run = dj.interop.load(root / "experiments" / "pretrained" / "digits")
schedule, predict = run.schedule, run.predictor()

# %% [markdown]
# ## Before: DDIM on a quadratic grid

# %%
before = samplers.ddim(schedule, timesteps.quadratic(schedule.num_timesteps, 5))
print(before)

# %% [markdown]
# ## Teacher and fit
#
# The teacher runs once. The fit changes the grid between its ends, the coefficients of x, x̂0 and ε̂, and those of the
# outputs of up to three rows before; it keeps the table that is best on `held_out`, which has other noise.

# %%
pairs, held_out = (
    learn.teacher(schedule, predict, dj.sample_keys(seed, 0, count), run.image_shape, clip=run.clip)
    for seed, count in ((1000, 512), (1001, 128))
)
fitted = learn.fit(
    before,
    learn.distance(predict, clip=run.clip),
    pairs,
    held_out=held_out,
    num_steps=300,
    learning_rate=0.02,
    free=("grid", *learn.COLUMNS),
    schedule=schedule,
    num_history=3,
)
print(f"mean squared distance to the teacher: {fitted.start:.4f} before, {fitted.loss:.4f} after")

# %% [markdown]
# ## After

# %%
print(fitted.table)

# %% [markdown]
# ## On noise that neither has seen
#
# The Fréchet distance in pixels to the 1,797 real digits; DDIM in 20 steps for comparison.

# %%
real = SOURCES["digits"]().images.reshape(-1, 64) / 255.0


def distance(table):
    """The Fréchet distance of 1,000 samples."""
    batches = dj.sample_many(table, predict, run.image_shape, seed=0, num=1000, batch_size=250, clip=run.clip)
    samples = np.concatenate([np.asarray(to_uint8(x)) for _, x in batches])
    return feature_distance(samples.reshape(-1, 64) / 255.0, real)


many = samplers.ddim(schedule, timesteps.trailing(schedule.num_timesteps, 20))
distances = {
    "DDIM, 5 steps": distance(before),
    "fitted, 5 steps": distance(fitted.table),
    "DDIM, 20 steps": distance(many),
}
for name, value in distances.items():
    print(f"{name:<16} {value:.3f}")

# %% [markdown]
# ## Keep it
#
# `samplers.save_table("learned.json", fitted.table)` writes it, and `diffjax sample --weights
# experiments/pretrained/digits --sampler learned --sample path=learned.json --steps 5` samples with it.
