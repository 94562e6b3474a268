"""Sweeps: a grid of cells over the options of a config, each computed once.

`cells` has the grid and the files of its results, `kinds` what a cell computes, `config` the schema of a sweep's
config, `compute` the loop over the cells, `tables` and `output` what is made of the figures.
"""
