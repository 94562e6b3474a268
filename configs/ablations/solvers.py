"""Samplers compared by their network calls (`calls` in the table): methods of two calls a step make 2S - 1 in S steps.

diffjax ablate --config ablations/solvers --workdir runs/digits --out sweeps/solvers

`within.csv` has, for each sampler, the number of calls that brings its Fréchet distance within 5 % of its distance at
1000 steps. On the digits a cell of 1000 steps takes minutes; docs/solvers.md has the figures for fewer.
"""

import ml_collections

SAMPLERS = (
    ("ddim", {"sampler": "ddim"}),
    ("ddpm", {"sampler": "ddpm"}),
    ("euler, churn", {"sampler": "euler", "churn": 10.0}),
    ("heun", {"sampler": "heun"}),
    ("dpm2", {"sampler": "dpm2"}),
    ("lms", {"sampler": "lms"}),
    ("plms", {"sampler": "plms"}),
    ("pndm", {"sampler": "pndm"}),
    ("dpm_solver", {"sampler": "dpm_solver", "order": 2}),
    ("dpm_solver_pp", {"sampler": "dpm_solver_pp", "order": 2}),
    ("dpm_solver_pp 3", {"sampler": "dpm_solver_pp", "order": 3}),
    ("dpm_solver_pp SDE", {"sampler": "dpm_solver_pp", "order": 2, "eta": 1.0}),
    ("dpm_solver_pp_singlestep", {"sampler": "dpm_solver_pp_singlestep", "order": 2}),
    ("dpm_solver_pp_2s_ancestral", {"sampler": "dpm_solver_pp_2s_ancestral"}),
    ("dpm_solver_pp_sde", {"sampler": "dpm_solver_pp_sde"}),
    ("unipc", {"sampler": "unipc", "order": 2}),
    ("unipc 3", {"sampler": "unipc", "order": 3}),
    ("deis", {"sampler": "deis", "order": 3}),
    ("sa_solver", {"sampler": "sa_solver"}),
    ("er_sde", {"sampler": "er_sde"}),
)


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            "axes": (
                ("S", tuple((str(steps), {"num_steps": steps}) for steps in (5, 8, 10, 20, 50, 100, 1000))),
                ("sampler", SAMPLERS),
            ),
            "sample": {"timestep_spacing": "trailing"},
            "within": "frechet",
        }
    )
