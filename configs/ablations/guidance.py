r"""Classifier-free guidance by its scale: at all noise levels, within an interval of them, and rescaled.

    diffjax classifier --config classes_fashion_mnist --out runs/judge.safetensors
    diffjax ablate --config ablations/guidance --workdir runs/classes_fashion_mnist --out sweeps/guidance \
        --config.extractor=runs/judge.safetensors

For any network trained with config.train.label_dropout. `accuracy` is the share of samples that the classifier assigns
to the class that they were conditioned on; it is left out where the extractor is not a classifier ("pixels").
"""

import ml_collections

SCALES = (0.0, 1.0, 1.5, 2.0, 4.0)
METHODS = (
    ("everywhere", {}),
    # Noise levels σ̄ = √((1-ᾱ)/ᾱ); with the linear schedule of 1000 steps, t = 88 … 474.
    ("0.3 < σ ≤ 3", {"guidance_interval": (0.3, 3.0)}),
    ("rescale 0.7", {"guidance_rescale": 0.7}),
)


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            "axes": (
                ("scale", tuple((f"{scale:g}", {"guidance_scale": scale}) for scale in SCALES)),
                ("guided", METHODS),
            ),
            # At scale 1 all methods are the conditional network, and at scale 0 the unconditional one.
            "skip": tuple((("scale", scale), ("guided", name)) for scale in ("0", "1") for name, _ in METHODS[1:]),
            "sample": {"sampler": "ddim", "num_steps": 50, "timestep_spacing": "trailing", "eta": 0.0},
            "figures": ("kernel", "frechet", "accuracy"),
        }
    )
