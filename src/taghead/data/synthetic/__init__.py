r"""SynthGym: generated clips of a gymnast, as real H.264 files, for demos, tests and experiments.

An articulated figure in 3D performs before a moving camera; what it does is the class, everything
else (camera, clothing, background, body, timing, noise) varies with one ``level``. Only its data
module imports `taghead.data.datamodule`; the generator imports `taghead.files` and what lies below.
Two families:

- ``somersault``: {forward, backward} x {tuck, pike, straight} x {0, 1, 2 half twists}. Length,
  take-off, landing, height, travel, arms and the framing of the camera are drawn independently
  of the class.
- ``order``: a tuck jump, a pike jump and a jump with a full twist in one of six orders. The classes
  differ only in when something happens: see :mod:`~taghead.data.synthetic.classes` for what is
  balanced, and how exactly.

.. code-block:: python

    frames = render_clip(seed=7, label=3)                   # uint8 [T, 120, 160, 3]
    write_dataset("data/synthgym", family="order", seed=0)  # videos/ and train, val, test .csv
"""

from .classes import FAMILIES, ClipSpec, class_names
from .render import ClipPlan, plan_clip, render_clip
from .writer import DEFAULT_SPLITS, write_clip, write_dataset

__all__ = [
    "DEFAULT_SPLITS",
    "FAMILIES",
    "ClipPlan",
    "ClipSpec",
    "class_names",
    "plan_clip",
    "render_clip",
    "write_clip",
    "write_dataset",
]
