r"""Restores images with a run that was trained for it, and measures the results beside baselines and other runs.

diffjax restore --workdir runs/sr3 --data image_key=x_test,label_key= --num 500 --out runs/sr3/restored \
    --compare runs/regression --sample num_steps=100 --sample num_steps=25,schedule.num_timesteps=25
diffjax restore --workdir runs/deblur --data path=test --whole --num 20 \
    --sample num_steps=50 --sample num_steps=50,num_samples=8 --sample num_steps=50,noise_scale=0.5
diffjax restore --workdir runs/sr3 --search 25 --num 200 [--best psnr]            # finds a short schedule
diffjax restore --workdir runs/sr3_16_64 --cascade runs/sr3_64_256,num_steps=100  # enlarges twice

diffjax restore --workdir runs/digits --operator downsampling,factor=2 --method mmps --method ddrm,eta=0.9 \
    --noise-std 0.1 --num-samples 8          # with a network that generates images

The table has a row for the input, each run of --compare, each baseline that is part of the model (the predictor of a
deblurring), and each --sample. A --sample sets fields of config.sample, num_samples (the mean of so many samples) and
noise_scale (the factor of x_T and of the noise of each step). Images are those held out of training, or else those
trained on; --data sets other fields of config.data. They are degraded as the config says, each with its own seed, and
the degradations are recorded in the JSON.

--search T adds linear schedules of T steps, with three first β and three last ᾱ, and prints the best one by --best. Do
not report figures on the images by which the schedule was chosen.
With --cascade the images are those of the last stage, reduced by the product of all factors. Each --sample is then the
first stage alone, enlarged bicubically, and the row `cascade` is the first --sample followed by all later stages.

With --operator, a run or --weights that generates images restores them by posterior sampling: x given the measurement
y = A·x + σ_y·noise. A row has one sample of each image; with --num-samples 2 or more, another row has their mean. The
runs of --compare get the images as their own config degrades them.

Writes `restoration.json`, `restoration.md`, `restored.png` (input, baselines, samples by number, truth), `curve.png`
(--best against PSNR, with Matplotlib) and `restored.npz` (of the cascade, or else of the first --sample; with --whole a
folder of PNG files).
  psnr, ssim      means over images, of all channels alike or of --luma's Y; ± the standard deviation over images
  lpips           version 0.1 on AlexNet, with weights that you provide (--lpips); ± the standard error of its mean
  consistency     of reductions: MSE between the restored image, reduced again, and the small image, in [0, 1]²·10⁵
  residual        of posterior samples: the root mean square of A·x - y, in units of σ_y's
  rank_deviation  of two or more samples: how far the truth's ranks among them are from uniform, 0 … K/(K+1)
  spread_over_error  of the same: 1 if they are spread as much as their mean is wrong; below 1: too certain
  kernel, frechet distances between the restored and the true images, or between their tiles (--tile), in features of
                  --extractor; Fréchet if there are more of them than the extractor has dimensions. Pixels of small
                  tiles (--tile 8) measure fine structure with few images.
"""

import argparse
import json

from diffjax import viz
from diffjax.cli import launch, options, posterior
from diffjax.errors import UserError, naming, writing
from diffjax.files import write
from diffjax.metrics import image_quality, lpips, records, registry
from diffjax.metrics.features.base import Extractor
from diffjax.metrics.image_quality import Measure
from diffjax.runs import restoration, restoration_files, restore, schedule_search
from diffjax.runs.restore import Cascade, Method
from diffjax.runs.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    options.add_workdir(source, required=False)
    source.add_argument(
        "--weights", type=options.local_path, help="weights that `diffjax sample` reads, with --operator and --data"
    )
    parser.add_argument(
        "--compare", action="append", default=[], type=options.path, metavar="WORKDIR",
        help="another run that restores images of this shape; adds a row (repeatable)",
    )  # fmt: skip
    row = "a row with these fields of config.sample, num_samples, noise_scale (repeatable; default: as in the config)"
    options.add_sample(parser, row)
    parser.add_argument(
        "--cascade", action="append", default=[], metavar="WORKDIR[,FIELD=VALUE,…]",
        help="a run that enlarges the output further, with fields as in --sample (repeatable)",
    )  # fmt: skip
    parser.add_argument("--search", type=options.positive, metavar="T", help="add linear schedules of T ≥ 2 steps")
    parser.add_argument(
        "--best", default="kernel", metavar="METRIC",
        help="the metric that --search and curve.png use: a name or an import path (default: kernel)",
    )  # fmt: skip
    options.add_data(parser)
    parser.add_argument("--whole", action="store_true", help="keep the size of images: neither crop nor scale them")
    parser.add_argument("--num", type=options.positive, default=64, help="the number of images (default: 64)")
    parser.add_argument("--batch-size", type=options.positive, default=64, help="images at a time (default: 64)")
    parser.add_argument(
        "--extractor", default="pixels",
        help="pixels (default), a classifier's .safetensors file, Inception's .pth file, or an import path",
    )  # fmt: skip
    parser.add_argument(
        "--tile", type=options.positive, metavar="PIXELS",
        help="height and width of the tiles whose features are compared (default: config.data.image_shape)",
    )  # fmt: skip
    parser.add_argument("--luma", action="store_true", help="measure PSNR and SSIM on Y in place of all channels")
    parser.add_argument(
        "--lpips",
        nargs=2,
        type=options.local_path,
        metavar=("ALEXNET", "LINEAR"),
        help="measure LPIPS, with these .pth files",
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="the seed of degradations and noise (default: 0)")
    parser.add_argument("--out", type=options.path, help="folder to write to (default: WORKDIR/restored)")
    posterior.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Restores images, measures them, and writes the figures and the images.

    Raises:
      UserError: a workdir without a run that restores images, an invalid value, or images that do not fit.
    """
    with naming("--best"):
        registry.find(args.best)
    if args.operator is not None:
        posterior.run_command(args)
        return
    posterior.check_absent(args)
    launch.start()
    out = options.output_folder(args.out or args.workdir / "restored")
    network = restore.load(args.workdir)
    cascade = _cascade(network, args)
    searched = _searched(args.search)
    samples = _samples(network, args.sample + searched)
    methods = _methods(restore.baselines(network), samples, cascade, restore.others(args.compare, cascade.shape))
    config = options.data(args, cascade.config)

    tile = (args.tile, args.tile, cascade.shape[2]) if args.tile else cascade.shape
    extract = registry.extractor(args.extractor, tile)
    perceptual = lpips.load(*args.lpips) if args.lpips else None
    pairs = restoration.load_pairs(config, args.num, seed=args.seed, whole=args.whole)
    if any(pair.truth.shape[n] < tile[n] for pair in pairs for n in (0, 1)):
        raise UserError(f"--tile={tile[0]}×{tile[1]}: an image is smaller; give fewer pixels")
    if perceptual:
        with naming("--lpips"):
            lpips.check(min((pair.truth.shape for pair in pairs), key=lambda shape: min(shape[:2])))
    names = tuple(dict.fromkeys((*image_quality.USUAL, args.best)))
    measure = Measure(pairs, extract, tile, luma_alone=args.luma, perceptual=perceptual, names=names)

    restored = _restore(methods, pairs, args)
    figures = {name: measure(images) for name, images in restored.items()}
    protocols = _protocols(methods, extract, config.data.source, args)
    rows = [(figures[name], protocols[name]) for name in methods]
    text = records.markdown(rows)
    print(text)
    if searched:
        print(f"best {args.best}: --sample {schedule_search.best({row: figures[row] for row in searched}, args.best)}")

    with writing(out):
        degradations = [pair.record and pair.record._asdict() for pair in pairs]
        saved = {"rows": [records.record(*row) for row in rows], "degradations": degradations}
        write(out / "restoration.md", text)
        titles = {name: f"sample {n + 1}" for n, name in enumerate(samples)}
        columns = restored | {"truth": [pair.truth for pair in pairs]}
        print(viz.save_png(out / "restored.png", restoration_files.picture(columns, titles, crop=args.whole)))
        chosen = restored["cascade" if cascade.later else next(iter(samples))]
        restoration_files.save_images(out, chosen, separate=args.whole)
        if len(samples) > 1 and all({"psnr", args.best} <= row.keys() for row in figures.values()):
            points = {name: (row["psnr"].value, row[args.best].value) for name, row in figures.items()}
            others = {name: points[name] for name in methods if name not in samples and name != "input"}
            sampled = {name: points[name] for name in samples}
            restoration_files.save_curve(out / "curve.png", args.best, others, sampled)
        print(write(out / "restoration.json", json.dumps(saved, indent=2, ensure_ascii=False) + "\n"))


def _cascade(network: Run, args: argparse.Namespace) -> Cascade:
    """Returns the stages that `--cascade` describes."""
    stages = []
    for text in args.cascade:
        workdir, _, fields = text.partition(",")
        stage = restore.load(workdir)
        stages.append((stage, restore.parse(stage.config, options.assignments("--cascade", fields))))
    return restore.cascade_of(network, stages)


def _searched(num_steps: int | None) -> list[str]:
    """Returns the schedules of `--search`, as texts of `--sample`."""
    if num_steps is None:
        return []
    try:
        found = schedule_search.candidates(num_steps)
    except ValueError as error:
        raise UserError(f"--search: {error}") from error
    return [",".join(f"{field}={value}" for field, value in fields.items()) for fields in found]


def _samples(network: Run, texts: list[str]) -> dict[str, Method]:
    """Returns a method for each `--sample`; without any, the one that the config describes."""
    parsed = {text: restore.parse(network.config, options.assignments("--sample", text)) for text in texts}
    return {text: restore.sampled(network, fields) for text, fields in (parsed or {"sample": {}}).items()}


def _methods(
    baselines: dict[str, Method], samples: dict[str, Method], cascade: Cascade, others: dict[str, Method]
) -> dict[str, Method]:
    """Returns all methods by name, in the order of the table's rows."""
    methods = {"input": Method(lambda condition, keys: condition), **others}
    own = baselines | samples
    if cascade.later:
        stages = [next(iter(samples.values())), *cascade.later]
        methods["cascade"] = restore.in_turn(stages, cascade.factors)
        own = {name: restore.in_turn([method], cascade.factors) for name, method in own.items()}
    return methods | own


def _restore(methods: dict[str, Method], pairs: list[image_quality.Pair], args: argparse.Namespace) -> dict[str, list]:
    """Returns the images that each method restores, uint8 `[H, W, C]`."""
    conditions = {False: [pair.condition for pair in pairs]}
    if any(method.takes_small for method in methods.values()):
        conditions[True] = [restoration.small_input(pair) for pair in pairs]
    restored = {}
    for name, method in methods.items():
        print(f"{name}: {len(pairs)} images", flush=True)
        given = conditions[method.takes_small]
        restored[name] = restoration.restore_all(method.restore, given, seed=args.seed, batch_size=args.batch_size)
    return restored


def _protocols(
    methods: dict[str, Method], extract: Extractor, source: str, args: argparse.Namespace
) -> dict[str, records.Protocol]:
    """Returns the protocol of each method's figures."""
    images = " ".join([f"{args.num} {'whole images' if args.whole else 'images'} of {source}", *args.data])
    return {
        name: records.Protocol(
            samples=f"{name} ({method.source})" if method.source else name,
            num=args.num,
            reference=f"{images}, {'Y' if args.luma else 'all channels'}",
            extractor=extract.protocol | ({"lpips": "0.1 on AlexNet, standard weights"} if args.lpips else {}),
            rounding="nearest",
            ema=method.parameters,
            sampler=method.sampler,
            seed=args.seed,
        )
        for name, method in methods.items()
    }
