"""Which backends there are to test."""

import importlib


def has_torchcodec() -> bool:
    """Whether torchcodec and the FFmpeg libraries that it loads are installed."""
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return False
    return True


BACKENDS = ["pyav", "decord"] + ["torchcodec"] * has_torchcodec()
