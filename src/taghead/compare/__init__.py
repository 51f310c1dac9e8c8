"""Comparisons of configurations from stored tables of runs: statistics, plots, Markdown.

It imports `taghead.metrics`, `taghead.files` and `taghead.errors`, and no model.
"""
