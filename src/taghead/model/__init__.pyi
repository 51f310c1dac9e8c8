from .classifier import VideoClassifier as VideoClassifier
from .pretrained import load_model as load_model
