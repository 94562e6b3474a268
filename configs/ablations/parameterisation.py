"""Targets of the network, weightings of the loss and its norms; each combination is trained on the digits.

diffjax ablate --config ablations/parameterisation --out sweeps/parameterisation
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    weightings = ("simple", "snr", "min_snr", "truncated")
    return ml_collections.ConfigDict(
        {
            "kind": "training",
            "base": "digits",
            "fields": {"train": {"steps": 2000}},
            "axes": (
                ("target", tuple((target, {"train.target": target}) for target in ("eps", "x0", "v"))),
                ("weighting", tuple((name, {"train.loss_weighting": name}) for name in weightings)),
                ("loss", tuple((norm, {"train.loss_norm": norm}) for norm in ("l2", "l1"))),
            ),
        }
    )
