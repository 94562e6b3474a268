"""What sweeps have in common."""

import ml_collections


def quality() -> ml_collections.ConfigDict:
    """Distances of samples of a trained workdir, by DDIM unless a cell says otherwise."""
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            # ((axis, ((label, {field of config.sample: value}), …)), …)
            "axes": (),
            # Cells that are left out: ((axis, label), …) each.
            "skip": (),
            "sample": {"sampler": "ddim", "steps": 50, "grid": "trailing"},
            "num": 2000,
            "batch_size": 500,
            "seed": 0,
            # "pixels", a classifier's .safetensors file, or FID's Inception's .pth file.
            "extractor": "pixels",
            "reference_num": 10_000,
            # 0: the run's first.
            "ema_decay": 0.0,
            # The Fréchet distance needs more samples, and real images, than there are features.
            "figures": ("kernel", "frechet"),
            # The figure by which to tell how many network calls a line needs to come within 5 % of its end.
            "within": "",
        }
    )


def reconstruction() -> ml_collections.ConfigDict:
    """Errors of encoding images and decoding them again."""
    return ml_collections.ConfigDict(
        {
            "kind": "reconstruction",
            "axes": (),
            "skip": (),
            "num": 200,
            "batch_size": 200,
            # Of an npz: the names of other arrays than those trained on, such as x_test and y_test.
            "images": "",
            "labels": "",
            "ema_decay": 0.0,
            "figures": ("mse",),
        }
    )


def bits() -> ml_collections.ConfigDict:
    """Bits/dim of images, by the bound of the DDPM chain that `sample` describes; of the same images as errors are."""
    config = reconstruction()
    config.update(kind="bits", seed=0, figures=("bound",))
    config.sample = {"sampler": "ddpm", "steps": 50, "grid": "linspace", "variance": "fixed_small"}
    return config


def training(base: str) -> ml_collections.ConfigDict:
    """Distances of samples of networks trained for each cell, from `configs/BASE.py` with the `fields` changed."""
    config = quality()
    del config.sample, config.ema_decay
    config.update(kind="training", base=base, fields=())
    return config
