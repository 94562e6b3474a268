"""Guidance as `config.sample` describes it."""

from collections.abc import Callable
from functools import partial

import numpy as np

from diffjax import guidance
from diffjax.errors import UserError, naming
from diffjax.sampling import Predict
from diffjax.schedules import NoiseSchedule

FIELDS = ("guidance", "guidance_interval", "guidance_rescale")
"""Of `config.sample`: the scale, and what else `guidance.classifier_free` takes."""


def guide(
    options, schedule: NoiseSchedule, *, num_classes: int | None, label_dropout: float
) -> Callable[[Predict], Predict] | None:
    """What `FIELDS` of `options` ask for: `guidance.classifier_free` for one network of both, or nothing.

    Args:
      options: `config.sample`; a field that is not there is None.
      schedule: of the network.
      num_classes: the network's.
      label_dropout: how often it was told no label.

    Raises:
      UserError: numbers that cannot be, a network without classes, or one that was never told no label.
    """
    scale, interval, rescale = (options.get(field) for field in FIELDS)
    if scale is None:
        for field, value in zip(FIELDS[1:], (interval, rescale), strict=True):
            if value:
                raise UserError(f"config.sample.{field}: {value} means nothing while config.sample.guidance is None")
        return None
    if num_classes is None:
        raise UserError(f"config.sample.guidance: {scale} needs classes (config.model.num_classes is None)")
    if not label_dropout:
        raise UserError(
            f"config.sample.guidance: {scale} needs a network that was told no label at times "
            "(config.train.label_dropout is 0)"
        )
    if not 0.0 <= scale < np.inf:
        raise UserError(f"config.sample.guidance: {scale} must be ≥ 0")
    if interval and len(interval) != 2:
        raise UserError(f"config.sample.guidance_interval: {tuple(interval)} must be two noise levels")
    found = partial(
        guidance.classifier_free,
        schedule=schedule,
        scale=scale,
        interval=tuple(interval or (0.0, np.inf)),
        rescale=rescale or 0.0,
    )
    with naming("config.sample.guidance"):
        found(lambda x, t: x)  # checks the numbers
    return found
