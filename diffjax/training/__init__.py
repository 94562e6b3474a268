"""Training: state, step, loop, checkpoints. `step.py` alone knows of pmap."""
