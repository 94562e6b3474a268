"""Samplers by the network calls they take (`calls` in the table): S steps of Heun are 2S - 1 of them.

`within.csv` has, for each sampler, how many bring its Fréchet distance within 5 % of that of its own 1000 steps.

python experiments/ablate.py --config configs/ablations/solvers.py --workdir runs/digits --out sweeps/solvers
"""

import ml_collections

from configs.ablations import base

SAMPLERS = (
    ("ddim", {"sampler": "ddim"}),
    ("heun", {"sampler": "heun"}),
    ("dpm_solver_pp", {"sampler": "dpm_solver_pp", "order": 2}),
    ("pndm", {"sampler": "pndm"}),
    ("ddpm", {"sampler": "ddpm"}),
)


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.quality()
    config.within = "frechet"
    config.axes = (
        ("S", tuple((str(steps), {"steps": steps}) for steps in (5, 10, 20, 50, 100, 1000))),
        ("sampler", SAMPLERS),
    )
    return config
