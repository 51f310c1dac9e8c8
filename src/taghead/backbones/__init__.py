"""3D video backbones: from a clip to a feature map, each saying what it gives."""

from taghead.backbones.base import Backbone
from taghead.backbones.build import BACKBONES, build_backbone
from taghead.backbones.networks import r2plus1d_34, r2plus1d_tiny
from taghead.backbones.spec import BackboneSpec, PublishedWeights
from taghead.backbones.wrap import WrappedBackbone, wrap_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneSpec",
    "PublishedWeights",
    "WrappedBackbone",
    "build_backbone",
    "r2plus1d_34",
    "r2plus1d_tiny",
    "wrap_backbone",
]
