"""What an import gives: a network, its schedule, and how those who made it sample from it."""

import dataclasses
from typing import Any, NamedTuple

import jax

from diffjax import guidance, models, timesteps
from diffjax.sampling import Clip
from diffjax.schedules import NoiseSchedule


class Settings(NamedTuple):
    """What the network was trained to give and be told, and how it is sampled from; the defaults are DDPM's."""

    target: str = "eps"
    """What it predicts: "eps", "x0" or "v"."""
    variance: str = "fixed_large"
    """Of `samplers.ddpm`; "learned" and "learned_range" need what the network predicts."""
    clip: Clip = 1.0
    grid: str = "leading"
    """The rule in `timesteps` for fewer steps."""
    offset: int = 0
    """Of the grid "leading"."""
    end: int = -1
    """Where grids end."""
    time: str = "index"
    """What it is told: the timestep t ("index"), t·1000/T ("per_thousand") or the noise level √ᾱ ("sqrt_alpha_bar")."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """An imported network."""

    model: models.UNet
    params: dict[str, Any]
    """NumPy arrays."""
    schedule: NoiseSchedule
    settings: Settings
    channels: int
    """Of an image."""
    condition_channels: int = 0
    """Of the condition image; 0: it takes none."""
    image_size: tuple[int, int] | None = None
    """(height, width); None where the file does not say."""

    def grid(self, num_steps: int) -> timesteps.Grid:
        """The time grid `int32[num_steps + 1]` that its settings name.

        Raises:
          ValueError: more steps than the grid's rule has room for.
        """
        rule = getattr(timesteps, self.settings.grid)
        offset = {"offset": self.settings.offset} if self.settings.offset else {}
        return rule(self.schedule.num_timesteps, num_steps, end=self.settings.end, **offset)

    def predict(
        self, *, schedule: NoiseSchedule | None = None, label: jax.Array | None = None, image: jax.Array | None = None
    ) -> jax.tree_util.Partial:
        """`predict(x, t)` for `diffjax.sample`: told the time as it was in training, its answer as ε̂ or `Prediction`.

        Args:
          schedule: another one to sample on, which a network that is told the noise level can (SR3).
          label: `int[B]` for a class-conditional network.
          image: `[B, H, W, condition_channels]` for one with a condition image.

        Raises:
          ValueError: another schedule for a network that is told the timestep.
        """
        settings = self.settings
        if schedule is not None and settings.time != "sqrt_alpha_bar":
            raise ValueError(f"this network is told the {settings.time}: it samples on the schedule it was trained on")
        schedule = schedule or self.schedule
        condition = {name: value for name, value in (("label", label), ("image", image)) if value is not None}
        predict = models.predictor(self.model, self.params, **condition)
        if settings.time == "per_thousand":
            predict = guidance.scale_timesteps(predict, 1000 / schedule.num_timesteps)
        elif settings.time == "sqrt_alpha_bar":
            predict = guidance.with_noise_level(predict, schedule)
        variance = settings.variance if settings.variance in ("learned", "learned_range") else None
        return guidance.from_target(predict, schedule, settings.target, variance=variance)
