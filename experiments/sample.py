"""Samples from a trained workdir, with its EMA parameters, or from weights made elsewhere.

python experiments/sample.py --workdir runs/digits --sampler ddim --steps 50 --eta 0.0 --num 64 --seed 0 --out FOLDER
python experiments/sample.py --weights FOLDER_OR_FILE --out FOLDER

Writes `grid.png` (the first ones) and `samples.npz` (`arr_0`, uint8 [num, H, W, C], as evaluators take them; of a
network of classes also `arr_1`, their labels). Batches are kept in `FOLDER/parts` until all are there, so the same
command goes on where a long run was cut.

Weights are a diffusers folder, or a file of pesser's, ermongroup's, OpenAI's, abarankab's or Janspiry's (SR3) code;
what the file does not say is given by --option, as in `--option diffusion_steps=4000 --option noise_schedule=cosine`.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from diffjax import interop, launch, models, sampling, viz
from diffjax.errors import UserError
from diffjax.steps import Steps
from diffjax.tasks import generation
from diffjax.training import guided, run_config, setup
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.flags import assignment


class Source(NamedTuple):
    """What is sampled from."""

    steps: Steps
    predict: Callable
    """Of the samples' numbers, `int[B]`: `predict(x, t)` for them."""
    model: models.UNet
    shape: tuple[int, int, int]
    clip: sampling.Clip
    identity: dict[str, Any]
    """What makes its samples those samples, for the parts of a run that was cut."""


def main() -> None:
    """Parses the command line, samples, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, help="a folder that train.py has written")
    source.add_argument("--weights", type=Path, help="a diffusers folder, or a file of PyTorch weights")
    parser.add_argument("--out", type=Path, help="folder to write to (default: WORKDIR/samples; ./samples for weights)")
    parser.add_argument("--num", type=int, default=64, help="how many images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--raw", action="store_true", help="the parameters themselves, not their EMA")
    parser.add_argument(
        "--label", "--labels", type=_labels, metavar="K[,K…]",
        help="the classes, over and over (default: sample n is of class n mod their number)",
    )  # fmt: skip
    weights = parser.add_argument_group("weights", "for --weights alone")
    weights.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="what the file omits")
    weights.add_argument("--image-size", type=int, help="height and width, where the file does not say")
    weights.add_argument("--image", type=Path, help="the condition image (SR3), scaled to the size bicubically")
    towards = parser.add_argument_group("guidance", "towards the label; what is not given is as the config has it")
    towards.add_argument("--guidance", type=float, metavar="SCALE", help="0: no class, 1: no guidance, and more")
    towards.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="noise levels √((1-ᾱ)/ᾱ) to guide in"
    )
    towards.add_argument("--guidance-rescale", type=float, metavar="φ", help="0 … 1: towards the unguided deviation")
    sampler = parser.add_argument_group("sampler", "what is not given is as the config or the weights have it")
    sampler.add_argument("--sampler", choices=setup.SAMPLERS)
    sampler.add_argument("--steps", type=int)
    sampler.add_argument("--grid", choices=setup.GRIDS)
    sampler.add_argument("--eta", type=float, help="of ddim, in [0, 1]")
    sampler.add_argument("--sigma-hat", action="store_true", default=None, help="of ddim: the larger noise of App. D.3")
    sampler.add_argument("--variance", choices=("fixed_small", "fixed_large", "learned_range"), help="of ddpm")
    sampler.add_argument("--order", type=int, help="of dpm_solver_pp and plms")
    launch.add_flags(parser)
    args = parser.parse_args()
    with launch.reporting():
        launch.start(**launch.processes(args), batch_size=min(args.batch_size, args.num))
        run(args)


def run(args: argparse.Namespace) -> None:
    """Samples as `args` ask.

    Raises:
      UserError: a workdir, weights or a value that cannot be.
    """
    for name in ("num", "batch_size", "image_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}={getattr(args, name)} must be ≥ 1")
    source = from_workdir(args) if args.workdir else from_weights(args)
    out = args.out or (args.workdir or Path()) / "samples"
    parts = out / "parts"
    batch_size = min(args.batch_size, args.num)
    _claim(parts, {**source.identity, "seed": args.seed, "num": args.num, "batch_size": batch_size})
    batches = generation.images(
        source.steps,
        source.predict,
        source.shape,
        clip=source.clip,
        seed=args.seed,
        num=args.num,
        batch_size=batch_size,
        skip={int(path.stem) for path in parts.glob("?????????.npy")},
        per_batch=True,
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
        classes = len(args.label) if args.label else source.model.num_classes
        print(viz.save_png(out / "grid.png", generation.grid(images, classes)))
        arrays = {"arr_0": images}
        if source.model.num_classes is not None:
            arrays["arr_1"] = generation.labels(source.model, np.arange(args.num), args.label)["label"]
        np.savez_compressed(out / "samples.npz", **arrays)
        print(out / "samples.npz")
        shutil.rmtree(parts)


def from_workdir(args: argparse.Namespace) -> Source:
    """The newest checkpoint of a training run, sampled as its config says where `args` do not."""
    for name in ("option", "image_size", "image"):
        if getattr(args, name) not in (None, []):
            raise UserError(f"--{name.replace('_', '-')} goes with --weights")
    config = run_config.load(args.workdir)
    config.sample.update(_options(args, config.sample))
    experiment = setup.experiment(config)
    _check_labels(args.label, experiment.model)
    with Checkpoints(args.workdir) as checkpoints:
        decay = None if args.raw else experiment.ema_decay
        step, params = checkpoints.restore_params(experiment.params_shape, ema=decay)

    def predict(numbers):
        return setup.sample_predictor(experiment, params, numbers, args.label)

    identity = {
        "workdir": str(args.workdir.resolve()),
        "step": step,
        "raw": args.raw,
        "label": args.label,
        "sample": json.loads(config.sample.to_json()),
    }
    return Source(experiment.steps, predict, experiment.model, experiment.image_shape, generation.CLIP, identity)


def from_weights(args: argparse.Namespace) -> Source:
    """Imported weights, sampled as those who made them do where `args` do not; by DDIM in 50 steps."""
    for field in guided.FIELDS:
        if getattr(args, field) is not None:
            raise UserError(f"--{field.replace('_', '-')} goes with --workdir: imported networks know no 'no label'")
    options = dict(assignment("--option", option) for option in args.option)
    net = interop.load(args.weights, **options, **({"ema": False} if args.raw else {}))
    size = (args.image_size, args.image_size) if args.image_size else net.image_size
    if size is None:
        raise UserError(f"{args.weights} does not say the size of its images: give --image-size")
    # The network's own variance is what the sampler by its side needs.
    few = min(50, net.schedule.num_timesteps)
    defaults = dict.fromkeys(setup.KNOBS) | {"sampler": "ddim", "steps": few, "grid": net.settings.grid}
    chosen = ml_collections.ConfigDict(defaults | _options(args, ml_collections.ConfigDict(defaults)))
    if chosen.sampler == "ddpm" and chosen.variance is None:
        chosen.variance = net.settings.variance
    steps = setup.sampler(net.schedule, chosen, grid=None if args.grid else net.grid)
    condition = {}
    _check_labels(args.label, net.model)
    if bool(args.image) != bool(net.condition_channels):
        raise UserError(f"--image: this network takes {'a' if net.condition_channels else 'no'} condition image")
    if args.image:
        condition["image"] = _condition(args.image, size, net.condition_channels)

    def predict(numbers):
        images = {name: np.repeat(value[None], len(numbers), axis=0) for name, value in condition.items()}
        return net.predict(**images, **generation.labels(net.model, numbers, args.label))

    identity = {
        "weights": str(args.weights.resolve()),
        "options": options,
        "raw": args.raw,
        "size": list(size),
        "label": args.label,
        "image": str(args.image),
        "sample": json.loads(chosen.to_json()),
    }
    return Source(steps, predict, net.model, (*size, net.channels), net.settings.clip, identity)


def _options(args: argparse.Namespace, defaults: ml_collections.ConfigDict) -> dict[str, Any]:
    """What changes in a `config.sample`."""
    given = {name: getattr(args, name) for name in ("sampler", "steps", "grid", *setup.KNOBS, *guided.FIELDS)}
    changed = {name: value for name, value in given.items() if value is not None}
    if args.sampler not in (None, defaults.sampler) or args.sigma_hat:
        # Another sampler does not take over the knobs of the config's own.
        changed = dict.fromkeys(setup.KNOBS) | changed
    return changed


def _check_labels(labels: list[int] | None, model: models.UNet) -> None:
    for label in labels or ():
        if not 0 <= label < (model.num_classes or 0):
            allowed = f"allowed is 0 … {model.num_classes - 1}" if model.num_classes else "this network has no classes"
            raise UserError(f"--label={label}: {allowed}")


def _labels(text: str) -> list[int]:
    try:
        return [int(label) for label in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, as in 3 or 0,1,2") from None


def _condition(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """A picture as float32 `[H, W, C]` in [-1, 1], at the network's size."""
    try:
        with Image.open(path) as picture:
            picture = picture.convert("RGB" if channels == 3 else "L").resize(size[::-1], Image.Resampling.BICUBIC)
    except OSError as error:
        raise UserError(f"cannot read --image {path}: {error}") from error
    return np.asarray(generation.normalize(np.asarray(picture).reshape(*size, channels)))


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
