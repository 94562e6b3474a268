"""Measures solvers by their network calls: the Fréchet distance in pixels of samples of one network.

    python experiments/benchmarks/solvers.py --out solvers.json
    python experiments/benchmarks/solvers.py --weights experiments/pretrained/fashion_mnist --error --num 32 \
        --out fashion.json

With --error it is the root mean square difference of pixels in [0, 1] from the same samples by Heun's method in 100
steps, for solvers that add no noise. Figures that are in the output file already are not measured again; --plot draws
some of them as a PNG.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import diffjax as dj
from diffjax.data.sources import SOURCES
from diffjax.errors import UserError
from diffjax.metrics.frechet import feature_distance
from diffjax.viz import plots

RHO = {"timestep_spacing": "karras", "rounded": True}
LOG_SNR = {"timestep_spacing": "log_snr", "rounded": True}
TRAILING = {"timestep_spacing": "trailing"}
SOLVERS = {
    "ddim": {"sampler": "ddim", "stride_end": None, **TRAILING},
    "ddim, quadratic": {"sampler": "ddim", "stride_end": None, "timestep_spacing": "quadratic"},
    "ddim, karras": {"sampler": "ddim", "stride_end": None, **RHO},
    "ddpm": {"sampler": "ddpm", **TRAILING},
    "heun": {"sampler": "heun", **TRAILING},
    "heun, karras": {"sampler": "heun", **RHO},
    "dpm2": {"sampler": "dpm2", **TRAILING},
    "lms": {"sampler": "lms", **TRAILING},
    "plms": {"sampler": "plms", **TRAILING},
    "pndm": {"sampler": "pndm", **TRAILING},
    "dpm_solver_pp 2": {"sampler": "dpm_solver_pp", "order": 2, **TRAILING},
    "dpm_solver_pp 3": {"sampler": "dpm_solver_pp", "order": 3, **TRAILING},
    "dpm_solver_pp 2, karras": {"sampler": "dpm_solver_pp", "order": 2, **RHO},
    "dpm_solver_pp 2, log_snr": {"sampler": "dpm_solver_pp", "order": 2, **LOG_SNR},
    "dpm_solver_pp 2, SDE": {"sampler": "dpm_solver_pp", "order": 2, "eta": 1.0, **TRAILING},
    "unipc 2": {"sampler": "unipc", "order": 2, **TRAILING},
    "unipc 3": {"sampler": "unipc", "order": 3, **TRAILING},
    "unipc 2, karras": {"sampler": "unipc", "order": 2, **RHO},
    "deis 3": {"sampler": "deis", "order": 3, **TRAILING},
    "sa_solver": {"sampler": "sa_solver", **TRAILING},
    "er_sde": {"sampler": "er_sde", **TRAILING},
}

PLOTTED = (
    "ddim",
    "ddim, quadratic",
    "heun",
    "lms",
    "pndm",
    "dpm_solver_pp 2",
    "dpm_solver_pp 2, log_snr",
    "unipc 2",
    "sa_solver",
    "er_sde",
)


def main():
    """Measures all solvers at all numbers of steps, and writes the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parents[1] / "pretrained" / "digits")
    parser.add_argument("--images", type=Path, help="an npz with x_train (default: the embedded digits)")
    parser.add_argument("--error", action="store_true", help="measure the difference from the limit of many steps")
    parser.add_argument("--steps", type=int, nargs="+", default=[3, 5, 8, 10, 20, 50])
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path, help="draw a picture of the figures here")
    args = parser.parse_args()
    run = dj.interop.load(args.weights)
    limit = {"sampler": "heun", "num_steps": 100, **TRAILING}
    reference = features(
        run.with_options(**limit).sample(args.num, seed=args.seed) if args.error else real_images(args.images)
    )
    figures = json.loads(args.out.read_text()) if args.out.exists() else {}
    for steps in args.steps:
        for name, options in SOLVERS.items():
            key = f"{name} | {steps}"
            if key in figures:
                continue
            try:
                changed = run.with_options(num_steps=steps, **options)
            except UserError as error:
                print(f"{key}: {error}", flush=True)
                continue
            if args.error and changed.sampler.is_stochastic:
                continue
            samples = features(changed.sample(args.num, seed=args.seed, batch_size=250))
            figures[key] = {"calls": changed.sampler.num_rows, **figure(samples, reference, error=args.error)}
            print(key, figures[key], flush=True)
            args.out.write_text(json.dumps(figures, indent=1) + "\n")
    if args.plot:
        plot(args.plot, figures, "error" if args.error else "distance")


def plot(path: Path, figures: dict[str, dict[str, float]], kind: str) -> None:
    """Draws the figures of `PLOTTED` over network calls."""
    series = {}
    for name in PLOTTED:
        own = sorted((f["calls"], f[kind]) for key, f in figures.items() if key.partition(" | ")[0] == name)
        if own:
            series[name] = tuple(zip(*own, strict=True))
    label = "root mean square error of pixels" if kind == "error" else "Fréchet distance in pixels"
    plots.save_figure(path, plots.curves(series, x="network calls", y=label))


def figure(samples: np.ndarray, reference: np.ndarray, *, error: bool) -> dict[str, float]:
    """Returns the distance of two sets of features, or the root mean square difference of each pair."""
    if error:
        return {"error": float(np.sqrt(np.mean((samples - reference) ** 2)))}
    return {"distance": float(feature_distance(samples, reference))}


def real_images(path: Path | None) -> np.ndarray:
    """Returns the real images, uint8 `[N, H, W, C]`."""
    return (SOURCES["digits"]() if path is None else SOURCES["npz"](path)).images


def features(pixels: np.ndarray) -> np.ndarray:
    """Returns the pixels in [0, 1], `[N, H·W·C]`."""
    return pixels.reshape(len(pixels), -1) / 255.0


if __name__ == "__main__":
    main()
