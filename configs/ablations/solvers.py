"""Samplers compared by their network calls (`calls` in the table): Heun's method makes 2S - 1 of them in S steps.

diffjax ablate --config ablations/solvers --workdir runs/digits --out sweeps/solvers

`within.csv` has, for each sampler, the number of calls that brings its Fréchet distance within 5 % of its distance at
1000 steps.
"""

import ml_collections

SAMPLERS = (
    ("ddim", {"sampler": "ddim"}),
    ("heun", {"sampler": "heun"}),
    ("dpm_solver_pp", {"sampler": "dpm_solver_pp", "order": 2}),
    ("pndm", {"sampler": "pndm"}),
    ("ddpm", {"sampler": "ddpm"}),
)


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            "axes": (
                ("S", tuple((str(steps), {"num_steps": steps}) for steps in (5, 10, 20, 50, 100, 1000))),
                ("sampler", SAMPLERS),
            ),
            "sample": {"timestep_spacing": "trailing"},
            "within": "frechet",
        }
    )
