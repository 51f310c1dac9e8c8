"""The annotation formats, one module each: `FORMATS` finds them.

A module here holds a subclass of :class:`~taghead.data.annotations.AnnotationFormat` and an
instance of it, `FORMAT`; it imports `taghead.data.annotations` and `taghead.video.segment`.
"""

from importlib import import_module
from pkgutil import iter_modules

from taghead.data.annotations.annotation_format import AnnotationFormat


def find_formats() -> dict[str, AnnotationFormat]:
    """The formats of all modules of this package, by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return {module.FORMAT.name: module.FORMAT for module in modules}


FORMATS = find_formats()
