"""Feature caches: a frozen backbone's feature maps, written once and trained on many times."""

from taghead.data.features.cache import FeatureCache, FeatureDataset
from taghead.data.features.shards import cache_bytes

__all__ = ["FeatureCache", "FeatureDataset", "cache_bytes"]
