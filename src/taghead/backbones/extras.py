"""Optional packages of backbones: imported when a backbone needs them, not before."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_extra(module: str, extra: str, backbone: str) -> ModuleType:
    """A module of an optional package.

    Args:
        module: The module's name.
        extra: The extra of this package that installs it.
        backbone: The backbone that needs it, for the error.

    Raises:
        ValueError: If it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(
            f"backbone {backbone} needs {package}: pip install 'taghead[{extra}]' ({error})"
        ) from error
