"""Memory of the gradient through `dj.sample` against the number of steps, with `remat` and without.

python experiments/benchmarks/gradients.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp

import diffjax as dj

STEPS = (5, 10, 20, 40, 80)
BATCH = 64


def main():
    """Compiles the gradients of a batch of the pretrained digits with respect to x_T, and prints their temporaries."""
    run = dj.interop.load(Path(__file__).parents[1] / "pretrained" / "digits")
    predict = run.predictor()
    x_T = dj.initial_noise(dj.sample_keys(0, 0, BATCH), run.image_shape)  # noqa: N806
    print("| S |", " | ".join(map(str, STEPS)), "|")
    for remat in (False, True):
        cells = [f"{temporaries(run, predict, x_T, steps, remat) / 2**20:.1f} MiB" for steps in STEPS]
        print(f"| remat={remat} |", " | ".join(cells), "|")


def temporaries(run, predict, x, steps: int, remat: bool) -> int:
    """Returns the bytes of the temporaries of one gradient."""
    table = dj.samplers.ddim(run.schedule, dj.timesteps.trailing(run.schedule.num_timesteps, steps))

    def objective(x):
        return jnp.mean(dj.sample(table, predict, x, clip=run.clip, remat=remat) ** 2)

    return jax.jit(jax.grad(objective)).lower(x).compile().memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    main()
