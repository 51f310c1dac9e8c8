"""Comparisons of configurations from stored tables of runs: statistics, plots, Markdown.

It imports `taghead.files` and `taghead.errors`, no model and no torch; it reads the files that
`taghead.sweep` writes.
"""
