"""Pictures as `uint8[H, W, 3]` arrays, plots as Matplotlib figures, and functions that save either."""

from diffjax.data.pixels import to_uint8
from diffjax.viz.animation import animation_frames, save_animation
from diffjax.viz.pixels import (
    captioned,
    denoising_strip,
    frame_grid,
    grid,
    level,
    neighbours,
    save_png,
    shrink,
    table,
)
from diffjax.viz.plots import curves, heat_map, labelled_rows, loss_by_timestep, save_figure, schedule, training_loss

__all__ = [
    "animation_frames",
    "captioned",
    "curves",
    "denoising_strip",
    "frame_grid",
    "grid",
    "heat_map",
    "labelled_rows",
    "level",
    "loss_by_timestep",
    "neighbours",
    "save_animation",
    "save_figure",
    "save_png",
    "schedule",
    "shrink",
    "table",
    "to_uint8",
    "training_loss",
]
