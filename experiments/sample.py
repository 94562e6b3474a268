"""Samples from a trained workdir, with its EMA parameters.

python experiments/sample.py --workdir runs/digits --sampler ddim --steps 50 --eta 0.0 --num 64 --seed 0 --out FOLDER

Writes `grid.png` (the first 64) and `samples.npz` (`arr_0`, uint8 [num, H, W, C], as evaluators take them). Batches
are kept in `FOLDER/parts` until all are there, so the same command goes on where a long run was cut.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffjax import models, viz
from diffjax.errors import UserError
from diffjax.tasks import generation
from diffjax.training import setup
from diffjax.training.checkpoints import Checkpoints


def main() -> None:
    """Parses the command line, samples, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a folder that train.py has written")
    parser.add_argument("--out", type=Path, help="folder to write to (default: WORKDIR/samples)")
    parser.add_argument("--num", type=int, default=64, help="how many images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--raw", action="store_true", help="the parameters themselves, not their EMA")
    sampler = parser.add_argument_group("sampler", "what is not given is as the config has it")
    sampler.add_argument("--sampler", choices=setup.SAMPLERS)
    sampler.add_argument("--steps", type=int)
    sampler.add_argument("--grid", choices=setup.GRIDS)
    sampler.add_argument("--eta", type=float, help="of ddim, in [0, 1]")
    sampler.add_argument("--sigma-hat", action="store_true", default=None, help="of ddim: the larger noise of App. D.3")
    sampler.add_argument("--variance", choices=("fixed_small", "fixed_large"), help="of ddpm")
    sampler.add_argument("--order", type=int, help="of dpm_solver_pp and plms")
    args = parser.parse_args()
    try:
        run(args)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(args: argparse.Namespace) -> None:
    """Samples as `args` ask.

    Raises:
      UserError: a workdir or a value that cannot be.
    """
    for name in ("num", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}={getattr(args, name)} must be ≥ 1")
    config = setup.load_config(args.workdir)
    given = {name: getattr(args, name) for name in ("sampler", "steps", "grid", *setup.KNOBS)}
    if args.sampler not in (None, config.sample.sampler) or args.sigma_hat:
        # Another sampler does not take over the knobs of the config's own.
        config.sample.update(dict.fromkeys(setup.KNOBS))
    config.sample.update({name: value for name, value in given.items() if value is not None})
    experiment = setup.experiment(config)
    out = args.out or Path(args.workdir) / "samples"
    with Checkpoints(args.workdir) as checkpoints:
        step, params = checkpoints.latest_step, checkpoints.restore_params(experiment.params_shape, ema=not args.raw)
    parts = out / "parts"
    batch_size = min(args.batch_size, args.num)
    _claim(parts, {
        "workdir": str(Path(args.workdir).resolve()), "step": step, "raw": args.raw, "seed": args.seed, "num": args.num,
        "batch_size": batch_size, "sample": json.loads(config.sample.to_json()),
    })  # fmt: skip
    batches = generation.images(
        experiment.steps,
        models.predictor(experiment.model, params),
        experiment.image_shape,
        seed=args.seed,
        num=args.num,
        batch_size=batch_size,
        skip={int(path.stem) for path in parts.glob("?????????.npy")},
        progress=True,
    )
    for start, images in batches:
        path = parts / f"{start:09d}.npy"
        np.save(path.with_suffix(".part.npy"), images)
        path.with_suffix(".part.npy").replace(path)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("every process has written its parts")
    if jax.process_index() == 0:
        images = np.concatenate([np.load(path) for path in sorted(parts.glob("?????????.npy"))])
        print(viz.save_png(out / "grid.png", viz.grid(images[:64], columns=8)))
        np.savez_compressed(out / "samples.npz", arr_0=images)
        print(out / "samples.npz")
        shutil.rmtree(parts)


def _claim(parts: Path, run: dict) -> None:
    """Opens the folder of parts for a run, or sees that the parts in it are of this very run."""
    path = parts / "run.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != run:
            different = sorted(name for name in run if run[name] != found.get(name))
            raise UserError(
                f"{parts} holds parts of another run ({', '.join(different)} differ): finish that one, remove the "
                "folder, or give another --out"
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(run) + "\n")
    part.replace(path)


if __name__ == "__main__":
    main()
