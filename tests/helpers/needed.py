"""Marks of tests that need an optional package."""

import importlib.util

import pytest


def needs(package: str) -> pytest.MarkDecorator:
    """Skips a test where a package is not installed."""
    is_missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(is_missing, reason=f"{package} is not installed")
