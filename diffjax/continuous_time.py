"""The levels of a schedule between its timesteps: ᾱ as a function of a real t in -1 … T-1, and its inverse.

Between whole timesteps the log-SNR log(ᾱ/(1-ᾱ)) is linear in t, as in k-diffusion and diffusers. Where it would be
infinite at an end, σ̄ = √((1-ᾱ)/ᾱ) is linear in t (from clean data, t = -1, to t = 0), and so is 1/σ̄ (to a last
timestep of ᾱ = 0). `process.scales_at` is the same function on the device.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def alpha_bar_at(alpha_bars: NDArray[np.float64], t: ArrayLike) -> NDArray[np.float64]:
    """Returns ᾱ at real times `t` of any shape; at a whole t it is the table's entry, and 1 at t = -1.

    Args:
      alpha_bars: ᾱ of every timestep, `[T]`.
      t: times in -1 … T-1.

    Raises:
      ValueError: a time outside that range, or one that is not a number.
    """
    t = np.asarray(t, np.float64)
    if t.size and not (np.min(t) >= -1.0 and np.max(t) <= len(alpha_bars) - 1.0):
        raise ValueError(f"t={np.min(t)} … {np.max(t)} must be within -1 (clean) … {len(alpha_bars) - 1}")
    before = np.floor(t).astype(np.int64)
    fraction = t - before
    table = np.append(alpha_bars, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_snr = np.log(table) - np.log(1.0 - table)
        # The index -1 is the last entry, that of clean data.
        low, high = log_snr[before], log_snr[np.minimum(before + 1, len(alpha_bars) - 1)]
        value = (1.0 - fraction) * low + fraction * high
        value = np.where(low == np.inf, high - 2.0 * np.log(fraction), value)
        value = np.where(high == -np.inf, low + 2.0 * np.log(1.0 - fraction), value)
        return np.where(fraction == 0.0, table[before], 1.0 / (1.0 + np.exp(-value)))


def timestep_at(alpha_bars: NDArray[np.float64], sigma_bar: ArrayLike) -> NDArray[np.float64]:
    """Returns the real time t in -1 … T-1 of each noise level σ̄ = √((1-ᾱ)/ᾱ): the inverse of `alpha_bar_at`.

    Args:
      alpha_bars: ᾱ of every timestep, `[T]`.
      sigma_bar: levels within 0 (clean data, t = -1) … σ̄_{T-1}, which is infinite where ᾱ ends at 0.

    Raises:
      ValueError: a level outside that range, or one that is not a number.
    """
    sigma_bar = np.asarray(sigma_bar, np.float64)
    with np.errstate(divide="ignore"):
        table = np.sqrt((1.0 - alpha_bars) / alpha_bars)
        # The largest level may come from another formula and be off by a rounding error.
        if sigma_bar.size and not (np.min(sigma_bar) >= 0.0 and np.max(sigma_bar) <= table[-1] * (1.0 + 1e-6)):
            raise ValueError(f"sigma={np.min(sigma_bar):g} … {np.max(sigma_bar):g} must be within 0 … {table[-1]:g}")
        finite = table[np.isfinite(table)]
        t = np.interp(np.log(sigma_bar), np.log(finite), np.arange(len(finite), dtype=np.float64))
        t = np.where(sigma_bar < finite[0], sigma_bar / finite[0] - 1.0, t)
        if len(finite) < len(table):
            t = np.where(sigma_bar > finite[-1], len(finite) - finite[-1] / sigma_bar, t)
        return t
