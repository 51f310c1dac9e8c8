from .classifier import VideoClassifier as VideoClassifier
