"""The PyTorch side of the cross-checks: tutorial samplers written again from their formulas, and diffusers lifted.

`s0`, `s3` and `s4` (the tutorial codes S0, S3 and S4) are PyTorch and NumPy alone. Each is right by default, and each
fault of its original is a keyword switch, so that a fault can be shown, and its results matched where that makes sense.
`lifted` runs diffusers' schedulers in float64. `compare` and `rows` set all of them against diffjax; nothing else here
knows it.

In all of them `eps_model(x, t)` gives ε̂ for x `[B, …]` and t `int64[B]` (S0's t is `[B, 1]`, S3's a Python int),
`noise(row)` gives the z of network call `row` (0 first), coefficients are float64 scalars whatever the state's dtype, and
a run returns every x that it passed.
"""
