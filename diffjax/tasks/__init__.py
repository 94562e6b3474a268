"""Tasks: what x_0 and the condition are. Schedules, samplers, training and sampling are the same for all."""
