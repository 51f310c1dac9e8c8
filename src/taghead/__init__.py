"""Time-aligned graph heads for 3D video backbones."""

__version__ = "0.1.0"
