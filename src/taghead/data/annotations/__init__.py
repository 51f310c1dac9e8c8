"""Annotations of datasets: which clip is where, and which class it shows."""

from taghead.data.annotations.classes import read_classes
from taghead.data.annotations.clip import Clip
from taghead.data.annotations.diving48 import read_diving48
from taghead.data.annotations.finegym import read_finegym
from taghead.data.annotations.folders import Split, read_folders, read_haa500
from taghead.data.annotations.formats import (
    Annotations,
    Format,
    detect_format,
    read_annotations,
)
from taghead.data.annotations.plain import read_plain
from taghead.data.annotations.reference import read_reference

__all__ = [
    "Annotations",
    "Clip",
    "Format",
    "Split",
    "detect_format",
    "read_annotations",
    "read_classes",
    "read_diving48",
    "read_finegym",
    "read_folders",
    "read_haa500",
    "read_plain",
    "read_reference",
]
