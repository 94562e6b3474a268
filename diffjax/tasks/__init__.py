"""Tasks: what x_0 and the condition are. Schedules, samplers, training and sampling are the same for all.

`generation` has no condition. The others restore an image from a degraded one, and are alike to whoever calls them
(`conditional.Restoration`): `super_resolution`, `deblurring`, and `regression`, which both are compared with.
"""
