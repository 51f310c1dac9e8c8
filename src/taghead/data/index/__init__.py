"""Checks of a dataset: every clip decoded once, a manifest that training reads, a report.

It imports `taghead.data.annotations` and `taghead.video`.
"""
