"""Sweeps: a grid of cells over the options of a config, each computed once.

`cells` holds the grid and the files of its results, `kinds` the computation of a cell, `config` the schema of a sweep's
config, `compute` the loop over the cells, `tables` and `output` the tables and plots of the figures.
"""
