"""Comparisons of a sweep's configurations from its stored tables: statistics, plots, Markdown.

It imports `taghead.files` and `taghead.errors`, no model and no torch; it reads the files that
`taghead.sweep` writes.
"""
