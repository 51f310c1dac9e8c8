from .limits import Limits as Limits
from .preprocessing import Preprocessing as Preprocessing
from .reader import VideoReader as VideoReader
from .reader import read_frames as read_frames
from .sampling import clip_indices as clip_indices
from .sampling import uniform_indices as uniform_indices
from .segment import Segment as Segment
