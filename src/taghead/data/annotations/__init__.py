"""Annotations of datasets: the file, the segment and the class of each clip.

It imports `taghead.video.segment` and nothing heavy: a format's library is imported when it reads.
"""

from taghead.data.annotations.annotation_format import AnnotationFormat, Annotations
from taghead.data.annotations.class_list import read_classes
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.formats import FORMATS
from taghead.data.annotations.read import Format, detect_format, read_annotations

__all__ = [
    "FORMATS",
    "AnnotationFormat",
    "Annotations",
    "Clip",
    "Format",
    "Split",
    "detect_format",
    "read_annotations",
    "read_classes",
]
