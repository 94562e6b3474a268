"""From the step's metrics to what is written down."""

import numpy as np


def summarize(window: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """One report of several dispatches' metrics (`make_train_step`), on the host.

    `loss` and `grad_norm` are means over the steps that were not skipped, `loss_t0` … that of each equal part of
    0 … T-1, and `skipped` counts the others. What has no step is left out.
    """
    columns = {name: np.concatenate([metrics[name] for metrics in window]) for name in window[0]}
    kept = columns["skipped"] == 0
    report = {"skipped": float(np.sum(~kept))}
    if not kept.any():
        return report
    report |= {name: float(np.mean(columns[name][kept])) for name in ("loss", "grad_norm")}
    sums, weights = (np.sum(columns[name][kept], axis=0) for name in ("bucket_loss", "bucket_weight"))
    return report | {f"loss_t{n}": float(sums[n] / weights[n]) for n in np.flatnonzero(weights)}
