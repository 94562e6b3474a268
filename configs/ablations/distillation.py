"""Progressive distillation of the pretrained digits in 16, 8, 4, 2 steps and 1; each student is the next one's teacher.

diffjax ablate --config ablations/distillation --out sweeps/distillation

Takes 16 minutes of CPU time. Fréchet distance in pixel space: 0.074, 0.078, 0.086, 0.097, 0.100; DDIM's 0.081 … 6.09.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    return ml_collections.ConfigDict(
        {
            "kind": "distillation",
            "base": "digits_distill",
            "fields": {"train": {"sample_every": 1500, "final_pictures": False}},
            "axes": (("S", tuple((str(steps), {"task.num_steps": steps}) for steps in (16, 8, 4, 2, 1))),),
            "num": 1000,
        }
    )
