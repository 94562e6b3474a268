"""Measures samples of the digits model against the real digits.

python experiments/evaluate.py --workdir runs/digits

Pixels are [0, 1], rounded to 8 bits; samples 0 … num-1 of the seed, EMA parameters, DDIM with η = 0. Prints and writes
`WORKDIR/evaluation.json`:
  frechet_distance       Fréchet distance of 64-dimensional Gaussians to all 1,797 real digits
  frechet_real_halves    the same between two random halves of the real ones: what sampling noise alone costs
  confidence             mean top-class probability of an SVM (RBF) fitted on the real digits, on samples …
  confidence_real        … and on held-out real digits (5-fold)
  class_shares           smallest and largest share of a class among the samples
  neighbour_ratio        with config.data.holdout > 0: the median distance of a sample to its nearest training image,
                         over that of a held-out image; well under 1 would mean memorising
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from diffjax import data, evaluation, launch
from diffjax.errors import UserError
from diffjax.tasks import generation
from diffjax.training import setup
from diffjax.training.checkpoints import Checkpoints


def main() -> None:
    """Parses the command line, samples, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a folder that train.py has written, with the digits as data")
    parser.add_argument("--num", type=int, default=1000, help="how many samples (at least 65)")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    launch.start()
    try:
        result = evaluate(args.workdir, num=args.num, steps=args.steps, seed=args.seed)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result, indent=2))
    (Path(args.workdir) / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")


def evaluate(workdir: str, *, num: int, steps: int, seed: int) -> dict:
    """The figures above.

    Raises:
      UserError: a workdir of other data, or too few samples for a 64-dimensional covariance.
    """
    if num < 65:
        raise UserError(f"--num={num}: a covariance of 64 pixels needs at least 65 samples")
    config = setup.load_config(workdir)
    if config.data.source != "digits":
        raise UserError(f"{workdir} was trained on {config.data.source!r}; these figures are for 'digits'")
    config.sample.update(dict.fromkeys(setup.KNOBS) | {"sampler": "ddim", "steps": steps, "eta": 0.0})
    experiment = setup.experiment(config)
    with Checkpoints(workdir) as checkpoints:
        step, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)

    def predict(numbers):
        return setup.predictor(experiment, params, **generation.labels(experiment.model, numbers))

    images = generation.images(
        experiment.steps,
        predict,
        experiment.image_shape,
        seed=seed,
        num=num,
        batch_size=min(num, 250),
        per_batch=True,
        progress=True,
    )

    everything = data.digits()
    real, samples = _pixels(everything.images), _pixels(np.concatenate([batch for _, batch in images]))
    confidence, shares = evaluation.class_confidence(samples, real, everything.labels)
    result = {
        "protocol": f"{num} EMA samples at step {step}, DDIM-{steps}, {config.sample.grid} grid, η = 0, seed {seed}",
        "frechet_distance": evaluation.frechet_distance(*map(evaluation.statistics, (samples, real))),
        "frechet_real_halves": evaluation.half_split_distance(real),
        "confidence": confidence,
        "confidence_real": evaluation.held_out_confidence(real, everything.labels),
        "class_shares": [float(shares.min()), float(shares.max())],
    }
    if config.data.holdout:
        trained_on, held_out = (
            _pixels(everything.images[part.indices])
            for part in data.split(everything, config.data.holdout, config.seed)
        )
        medians = [np.median(evaluation.nearest_distances(queries, trained_on)) for queries in (samples, held_out)]
        result["neighbour_ratio"] = float(medians[0] / medians[1])
    return result


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


if __name__ == "__main__":
    main()
