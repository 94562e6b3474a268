"""A Matplotlib figure that a notebook shows."""

import io

import matplotlib.figure


class Figure(matplotlib.figure.Figure):
    """A figure that is shown where it is the last value of a notebook's cell, with any backend and without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, dpi=110, format="png", bbox_inches="tight", pad_inches=0.05)
        return buffer.getvalue()
