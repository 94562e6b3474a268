"""Tasks: each defines x_0 and its condition, and how the network is trained and sampled.

`generation` makes images from noise. The others restore an image from a degraded one: `super_resolution`, `deblurring`,
and `regression`, the baseline of both. `base.Task` is the interface, `base.TASKS` the registry.
"""

from diffjax.tasks.base import TASKS, Guidance, Objective, Sampling, Task

__all__ = ["TASKS", "Guidance", "Objective", "Sampling", "Task"]
