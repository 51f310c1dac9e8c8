"""Sweeps: many runs of one experiment, a table of them, and a report on the table."""
