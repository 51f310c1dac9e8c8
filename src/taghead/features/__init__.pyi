from .cache import FeatureCache as FeatureCache
from .cache import FeatureDataset as FeatureDataset
from .datamodule import FeatureDataModule as FeatureDataModule
from .shards import cache_bytes as cache_bytes
from .token_graphs import TokenGraphs as TokenGraphs
