"""Restores images with a network that was trained to, and measures how well, beside what it is compared with.

python experiments/restore.py --workdir runs/sr3 --data images=x_test labels= --num 500 --out runs/sr3/restored \
    --regression runs/regression --sample steps=100 --sample num_timesteps=25,steps=25,beta_start=1e-4,beta_end=0.5
python experiments/restore.py --workdir runs/deblur --data path=test --whole --num 20 \
    --sample steps=50 --sample steps=50,draws=8 --sample steps=5 --sample steps=50,noise_scale=0.5

python experiments/restore.py --workdir runs/sr3 --search 25 --num 200 [--best psnr]      # a short schedule
python experiments/restore.py --workdir runs/sr3_16_64 --cascade runs/sr3_64_256,steps=100 --sample steps=100

A row for each --sample: fields of config.sample, and besides `draws` (the mean of so many) and `noise_scale` (of x_T
and of the noise of each step). Images are those held out, or else those trained on; --data sets other fields of
config.data. They are degraded as the config says, each with its own seed, and what was done is in the JSON.
--search T adds linear schedules of T steps, from three first β to three last ᾱ, and names the one with the least kernel
distance (or another figure, --best); choose on other images than those that are reported.
With --cascade the images are those of the last stage, made as many times smaller as all stages enlarge. The rows of
--sample are then the first stage alone, enlarged bicubically; `cascade` is the first of them with all stages after it.

Writes `restoration.json`, `restoration.md`, `restored.png` (input, baselines, samples by number, truth), `curve.png`
(--best against PSNR, if Matplotlib is there) and `restored.npz` (of the cascade, or else the first --sample;
whole images: a folder of PNG files).
  psnr, ssim      means over images, of all channels alike or of --luma's Y; ± over images
  lpips           version 0.1 on AlexNet, by weights of your own (--lpips); its mean ± the standard error of that
  consistency     of reductions: MSE of the image made small again against the small one, in [0, 1]²·10⁵
  kernel, frechet distances between the restored and the true images, or their tiles of --tile pixels across (default:
                  config.data.image_shape), in features of --extractor; Fréchet where there are more of them than the
                  extractor has dimensions. Small tiles' pixels tell fine structure, of few images: --tile 8
"""

import argparse
import json
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy.optimize import brentq

from diffjax import data, launch, viz
from diffjax.data import degradations
from diffjax.errors import UserError, naming, writing
from diffjax.evaluation import figures, lpips, quality
from diffjax.evaluation.figures import Figure
from diffjax.evaluation.restoration import Measure, Pair
from diffjax.noise import sample_keys
from diffjax.tasks import conditional
from diffjax.tasks.deblurring import Deblurring
from diffjax.tasks.generation import normalize
from diffjax.training import restoration, run_config, setup, ways
from diffjax.training.flags import assignment
from diffjax.training.trained import Trained
from diffjax.training.ways import Way

_SHOWN = 8


def main() -> None:
    """Parses the command line, restores, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="a folder that train.py has written")
    parser.add_argument("--regression", type=Path, help="another one, of a regression with the same degradation")
    parser.add_argument("--sample", action="append", default=[], metavar="FIELD=VALUE,…", help="a row; may be repeated")
    parser.add_argument(
        "--cascade", action="append", default=[], metavar="WORKDIR[,FIELD=VALUE,…]", help="a next stage"
    )
    parser.add_argument("--search", type=int, metavar="T", help="rows for schedules of T steps; names the best")
    parser.add_argument(
        "--best", default="kernel", choices=("kernel", "frechet", "psnr", "ssim", "consistency", "lpips")
    )
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="FIELD=VALUE", help="of config.data: other images, all of them"
    )
    parser.add_argument("--whole", action="store_true", help="images in their own size, not cropped or scaled")
    parser.add_argument("--num", type=int, default=64, help="how many images")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--extractor", default="pixels", help="pixels, a classifier's .safetensors, Inception's .pth")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="height and width of what distances are between")
    parser.add_argument("--luma", action="store_true", help="PSNR and SSIM of Y in place of RGB")
    parser.add_argument("--lpips", nargs=2, type=Path, metavar=("ALEXNET", "LIN"), help="its weights: two .pth files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to write to (default: WORKDIR/restored)")
    args = parser.parse_args()
    with launch.reporting():
        launch.start()
        run(args)


def run(args: argparse.Namespace) -> None:
    """Restores as `args` ask.

    Raises:
      UserError: a workdir or a value that cannot be.
    """
    for name in ("num", "batch_size", "tile"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}={getattr(args, name)} must be ≥ 1")
    trained = ways.load(args.workdir)
    stages = ways.stages(trained, args.cascade)
    tile = (args.tile, args.tile, stages.shape[2]) if args.tile else stages.shape
    extract = quality.extractor(args.extractor, tile)
    perceptual = lpips.load(*args.lpips) if args.lpips else None
    searched = candidates(args.search) if args.search else []
    samples = {text or "sample": ways.sampled(trained, text) for text in [*args.sample, *searched] or [""]}
    compared = {"input": Way(lambda condition, keys: condition)}
    if args.regression:
        compared["regression"] = ways.regression(args.regression, stages.shape)
    if isinstance(trained.experiment.task, Deblurring):
        compared["predictor"] = Way(lambda condition, keys: trained.experiment.task.predict(trained.params, condition))
    if stages.later:
        compared["cascade"] = ways.in_turn([next(iter(samples.values())), *stages.later], stages.factors)
        samples = {name: ways.in_turn([way], stages.factors) for name, way in samples.items()}
    first_sample, compared = len(compared), compared | samples
    config = stages.config
    if args.data:
        with naming("--data"):
            config = run_config.with_data(config, dict(assignment("--data", text) for text in args.data))
    pairs = load_pairs(config, args)
    if any(pair.truth.shape[n] < tile[n] for pair in pairs for n in (0, 1)):
        raise UserError(f"--tile={tile[0]}×{tile[1]}: an image is smaller; give fewer pixels")
    smaller = [_small(pair) for pair in pairs] if stages.later else []
    if perceptual:
        with naming("--lpips"):
            lpips.check(min((pair.truth.shape for pair in pairs), key=lambda shape: min(shape[:2])))

    made = {}
    for name, way in compared.items():
        print(f"{name}: {len(pairs)} images", flush=True)
        given = smaller if way.small else [pair.condition for pair in pairs]
        made[name] = restored(way.restore, given, seed=args.seed, batch_size=args.batch_size)
    truth = [pair.truth for pair in pairs]
    measure = Measure(pairs, extract, tile, luma_alone=args.luma, perceptual=perceptual)
    kind = "whole images" if args.whole else "images"
    where = " ".join([f"{len(pairs)} {kind} of {config.data.source}", *args.data])
    rows = [
        (measure(images), _protocol(name, compared[name], args, trained, extract, where))
        for name, images in made.items()
    ]

    out = args.out or args.workdir / "restored"
    text = figures.markdown(rows)
    print(text)
    if searched:
        found = {name: row[0] for name, row in zip(compared, rows, strict=True)}
        print(f"best {args.best}: --sample {best(found, searched, args.best)}")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        records = [pair.record and pair.record._asdict() for pair in pairs]
        numbered = {name: f"sample {n + 1}" for n, name in enumerate(samples)}
        saved = {"rows": [figures.record(*row) for row in rows], "degradations": records}
        (out / "restoration.json").write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n")
        (out / "restoration.md").write_text(text)
        print(viz.save_png(out / "restored.png", picture(made | {"truth": truth}, numbered, args.whole)))
        save_images(out, made["cascade" if stages.later else next(iter(samples))], args.whole)
        if len(samples) > 1 and args.best in rows[0][0]:
            points = {
                name: (row["psnr"].value, row[args.best].value) for name, (row, _) in zip(made, rows, strict=True)
            }
            baselines = {name: points[name] for name in list(compared)[1:first_sample]}
            save_curve(out / "curve.png", args.best, baselines, {name: points[name] for name in samples})
    print(out / "restoration.json")


def candidates(steps: int) -> list[str]:
    """Linear schedules of `steps` steps, as --sample has them: first β 1e-6 … 1e-2, last ᾱ 1e-2 … 1e-4.

    Raises:
      UserError: fewer than 2 steps.
    """
    if steps < 2:
        raise UserError(f"--search={steps} must be ≥ 2")
    rows = []
    for first in (1e-6, 1e-4, 1e-2):
        for last_alpha_bar in (1e-2, 1e-3, 1e-4):

            def miss(last_beta, first=first, wanted=last_alpha_bar):
                return np.sum(np.log1p(-np.linspace(first, last_beta, steps))) - np.log(wanted)

            last = brentq(miss, first, 1.0 - 1e-9)
            rows.append(f"num_timesteps={steps},steps={steps},beta_start={first:g},beta_end={last:.4g}")
    return rows


def best(found: dict[str, dict[str, Figure]], searched: list[str], name: str) -> str:
    """The one of `searched` whose figure is best.

    Raises:
      UserError: a figure that these images have not.
    """
    if any(name not in found[text] for text in searched):
        raise UserError(f"--best={name}: these images have only {', '.join(found[searched[0]])}")
    sign = -1.0 if name in ("psnr", "ssim") else 1.0
    return min(searched, key=lambda text: sign * found[text][name].value)


def load_pairs(config: ml_collections.ConfigDict, args: argparse.Namespace) -> list[Pair]:
    """The images and their conditions, the same for the same seed.

    Raises:
      UserError: data that is not there, or is not as the config says.
    """
    trained_on, held_out, prepare = setup.images(config)
    source = held_out if len(held_out) else trained_on
    degrade = restoration.degrade(config, source[0], prepare)
    if args.num > len(source):
        raise UserError(f"--num={args.num}: there are {len(source)} images")
    pairs = []
    with naming("config.data"):
        for n in range(args.num):
            example, rng = source[n], np.random.default_rng((args.seed, n))
            fit = partial(_whole, config=config) if args.whole else prepare
            truth = fit(example["image"])
            if degrade is None:
                pairs.append(Pair(truth, fit(example["condition"]), None))
            else:
                record = degradations.draw(rng, **degrade.keywords)
                pairs.append(Pair(truth, degradations.apply(record, truth), record))
    return pairs


def restored(
    restore: conditional.Restore, conditions: list[np.ndarray], *, seed: int, batch_size: int
) -> list[np.ndarray]:
    """What becomes of each condition: uint8 `[H, W, C]`. Image n has key n of the seed.

    Those of one size go together, in batches that are filled up, so that one compilation serves all.
    """
    made: list[np.ndarray] = [np.empty(0)] * len(conditions)
    keys = sample_keys(seed, 0, len(conditions))
    for shape in dict.fromkeys(condition.shape for condition in conditions):
        numbers = [n for n, condition in enumerate(conditions) if condition.shape == shape]
        size = min(batch_size, len(numbers))
        for start in range(0, len(numbers), size):
            some = numbers[start : start + size]
            filled = np.array(some + some[-1:] * (size - len(some)))
            x = restore(normalize(jnp.asarray(np.stack([conditions[n] for n in filled]))), keys[filled])
            for n, image in zip(some, viz.to_uint8(x), strict=False):
                made[n] = image
    return made


def picture(columns: dict[str, list[np.ndarray]], names: dict[str, str], whole: bool) -> np.ndarray:
    """A row an image, of whole images the middle, under the columns' names, or those in `names`."""
    shown = [column[:_SHOWN] for column in columns.values()]
    if whole:
        size = min(160, *(min(image.shape[:2]) for column in shown for image in column))
        middle = partial(data.prepare, shape=(size, size, shown[0][0].shape[2]), fit="crop")
        shown = [[middle(image) for image in column] for column in shown]
    tiles = np.stack([np.stack(column) for column in shown], axis=1)
    return viz.table(
        tiles, columns=[names.get(name, name) for name in columns], rows=[str(n) for n in range(len(tiles))]
    )


def save_images(out: Path, images: list[np.ndarray], whole: bool) -> None:
    """`restored.npz`, or a file an image."""
    if not whole:
        np.savez_compressed(out / "restored.npz", arr_0=np.stack(images))
        return
    for n, image in enumerate(images):
        viz.save_png(out / "images" / f"{n:05d}.png", image.squeeze())


def save_curve(path: Path, figure: str, baselines: dict[str, tuple], samples: dict[str, tuple]) -> None:
    """The figure of that name against PSNR, by name (PSNR, figure): a line for the samples that set the same fields."""
    lines: dict[tuple, list[str]] = {}
    for text in sorted(samples, key=lambda text: samples[text]):
        lines.setdefault(tuple(part.partition("=")[0] for part in text.split(",")), []).append(text)
    series = {name: ([point[0]], [point[1]]) for name, point in baselines.items()}
    for texts in lines.values():
        points = [samples[text] for text in texts]
        series[" …\n".join(dict.fromkeys((texts[0], texts[-1])))] = tuple(map(list, zip(*points, strict=True)))
    try:
        print(viz.curves(path, series, x="PSNR, dB", y=figure))
    except UserError as error:
        print(error)


def _small(pair: Pair) -> np.ndarray:
    """The image as small as it was made.

    Raises:
      UserError: a source that has conditions of its own.
    """
    if pair.record is None:
        raise UserError("--cascade: config.data.source must have images alone; these have conditions of their own")
    return degradations.downsample(pair.truth, pair.record.size, pair.record.kind)


def _whole(image: np.ndarray, config: ml_collections.ConfigDict) -> np.ndarray:
    """An image in its own size, but for what is over where it is to be made smaller."""
    factor = config.data.degradation.factor if set(config.data.degradation.kinds) & set(degradations.REDUCTIONS) else 1
    height, width = (size - size % factor for size in image.shape[:2])
    return data.prepare(image[:height, :width], shape=(height, width, config.data.image_shape[2]))


def _protocol(name: str, how: Way, args, trained: Trained, extract, where: str) -> figures.Protocol:
    own = how.sampler != "none"
    return figures.Protocol(
        samples=f"{name}" + (f" ({args.workdir}, step {trained.step})" if own else ""),
        num=args.num,
        reference=f"{where}, {'Y' if args.luma else 'all channels'}",
        extractor=extract.protocol | ({"lpips": "0.1 on AlexNet, standard weights"} if args.lpips else {}),
        rounding="nearest",
        ema=f"EMA {trained.experiment.ema_decay}",
        sampler=how.sampler,
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
