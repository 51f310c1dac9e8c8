from .predictor import Prediction as Prediction
from .predictor import predict_videos as predict_videos
