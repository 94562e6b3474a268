"""Training: the state, the data-parallel step (only `step.py` uses pmap), optimizers, checkpoints and reports."""
