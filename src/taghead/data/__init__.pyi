from .annotations import Clip as Clip
from .annotations import read_annotations as read_annotations
from .datamodule import VideoDataModule as VideoDataModule
from .dataset import ClipDataset as ClipDataset
from .synthetic.datamodule import SynthGym as SynthGym
