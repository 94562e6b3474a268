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
            "figures": ("kernel", "frechet"),
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
            "figures": ("mse",),
        }
    )


def training(base: str) -> ml_collections.ConfigDict:
    """Distances of samples of networks trained for each cell, from `configs/BASE.py` with the `fields` changed."""
    config = quality()
    del config.sample, config.ema_decay
    config.update(kind="training", base=base, fields=())
    return config
