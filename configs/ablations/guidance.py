"""Classifier-free guidance by its scale: at all noise levels, in an interval of them, and rescaled.

    python experiments/classifier.py --config configs/classes_fashion_mnist.py --out runs/judge.safetensors
    python experiments/ablate.py --config configs/ablations/guidance.py --workdir runs/classes_fashion_mnist \
        --out sweeps/guidance --config.extractor=runs/judge.safetensors

Of any network trained with config.train.label_dropout. `accuracy` is the share of samples that the classifier takes for
their label; without one (the extractor "pixels") the distances are left.
"""

import ml_collections

from configs.ablations import base

SCALES = (0.0, 1.0, 1.5, 2.0, 4.0)
HOW = (
    ("everywhere", {}),
    # σ̄ = √((1-ᾱ)/ᾱ): of the linear schedule of 1000 steps, t = 88 … 474.
    ("0.3 < σ ≤ 3", {"guidance_interval": (0.3, 3.0)}),
    ("rescale 0.7", {"guidance_rescale": 0.7}),
)


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.quality()
    config.axes = (
        ("scale", tuple((f"{scale:g}", {"guidance": scale}) for scale in SCALES)),
        ("guided", HOW),
    )
    # At the scale 1 all of them are the conditional network, and below it there is nothing to limit.
    config.skip = tuple((("scale", scale), ("guided", how)) for scale in ("0", "1") for how, _ in HOW[1:])
    config.figures = ("kernel", "frechet", "accuracy")
    return config
