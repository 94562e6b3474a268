"""`diffjax restore --operator …`: posterior sampling with a network that generates images."""

import json
from pathlib import Path

import numpy as np
import pytest

WEIGHTS = Path(__file__).parents[2] / "experiments" / "pretrained" / "digits"


def restore(command, out, *flags):
    command("restore", "--weights", WEIGHTS, "--out", out, "--num", 4, "--steps", 3, *flags)
    rows = json.loads((out / "restoration.json").read_text())["rows"]
    return {row["protocol"]["samples"].split(" (")[0]: row for row in rows}


def test_rows_of_methods(command, tmp_path):
    flags = ["--operator", "downsampling,factor=2", "--noise-std", 0.1]
    methods = ["--method", "ddrm,eta=0.9"]
    rows = restore(command, tmp_path / "both", *flags, *methods, "--num-samples", 2, "--batch-size", 8)
    assert list(rows) == ["input", "ddrm,eta=0.9", "ddrm,eta=0.9, mean of 2"]
    one, mean = (rows[name]["figures"] for name in list(rows)[1:])
    assert {"psnr", "consistency", "residual", "rank_deviation", "spread_over_error"} <= one.keys()
    assert mean["psnr"]["value"] > one["psnr"]["value"]
    assert one["psnr"]["value"] > 10
    assert "y by downsampling,factor=2,kind=bicubic, σ_y = 0.1" in rows["input"]["protocol"]["reference"]
    assert "eta 0.9" in rows["ddrm,eta=0.9"]["protocol"]["sampler"]
    assert (tmp_path / "both" / "restored.png").exists()
    whole = np.load(tmp_path / "both" / "restored.npz")["arr_0"].astype(int)
    assert whole.shape == (4, 8, 8, 1)

    # A sample depends on its image and number alone.
    alone = restore(command, tmp_path / "alone", *flags, *methods, "--batch-size", 8)
    assert list(alone) == ["input", "ddrm,eta=0.9"]
    np.testing.assert_allclose(np.load(tmp_path / "alone" / "restored.npz")["arr_0"], whole, atol=1)
    assert "rank_deviation" not in alone["ddrm,eta=0.9"]["figures"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--operator", "lens"], "--operator: 'lens' is not one of"),
        (["--operator", "box,height"], "--operator height: 'height' must be FIELD=VALUE"),
        (["--operator", "box,depth=1"], "--operator: box: 'depth' is not an option; the options are: height, width"),
        (["--operator", "box,height=x"], "--operator: box: height: 'x' must be a number"),
        (["--operator", "box,height=2"], r"--operator box.height: 2.0 must be within \(0, 1\]"),
        (["--operator", "downsampling,factor=3"], "--operator downsampling.factor: 3 must divide"),
        (["--operator", "box", "--method", "magic"], "--method: 'magic' is not one of"),
        (["--operator", "box", "--method", "mmps,iterations=0"], "--method mmps.iterations: 0 must be ≥ 1"),
        (["--operator", "downsampling,factor=2", "--method", "repaint"], "repaint needs an operator that is a mask"),
        (["--operator", "gaussian_blur,edges=reflect,sigma=0.5", "--method", "ddrm"], "needs the SVD of the operator"),
        (["--operator", "box", "--sample", "eta=1"], "--sample goes without --operator"),
        (["--operator", "box", "--steps", "0"], "config.sample.num_steps: 0 must be a whole number ≥ 1"),
        (["--operator", "box", "--best", "nope"], "--best: 'nope' is not one of"),
        (["--operator", "box", "--num", "2000"], "num=2000 must be ≤ 1797, the number of images"),
        ([], "--weights goes with --operator, which samples posteriors"),
    ],
)
def test_wrong_calls(flags, words, command, tmp_path):
    with pytest.raises(SystemExit, match=words):
        command("restore", "--weights", WEIGHTS, "--out", tmp_path / "out", "--num", 1, *flags)
    assert not (tmp_path / "out" / "restoration.json").exists()
