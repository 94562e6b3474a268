"""What a trained network draws, as figures and reports want it."""

from typing import Any

import numpy as np

from diffjax import devices
from diffjax.sampling import Clip
from diffjax.tasks import generation
from diffjax.training import setup


def draw(
    experiment: setup.Experiment, params: Any, num: int, *, seed: int = 0, clip: Clip = generation.CLIP,
    batch_size: int = 250, progress: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """Samples 0 … num - 1 of a seed, by the experiment's sampler and guidance, in batches spread over the devices.

    Returns:
      (images uint8 `[num, H, W, C]`; the classes they were told to be of, int32 `[num]`, or None).
    """

    def predict(numbers):
        return setup.sample_predictor(experiment, params, numbers)

    batches = generation.images(
        experiment.steps, predict, experiment.image_shape, clip=clip, seed=seed, num=num,
        batch_size=devices.whole(min(num, batch_size)), per_batch=True, progress=progress,
    )  # fmt: skip
    images = np.concatenate([images for _, images in batches])
    return images, generation.labels(experiment.model, np.arange(num)).get("label")
