"""Trials: commands that are killed, stopped, paused, starved of disk and torn, then run again.

It runs the installed command `taghead` in processes of its own, and imports nothing of the tests.
"""
