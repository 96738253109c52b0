"""A model and images -> boxes."""

from boxtune.infer.folder import find_images, predict_folder
from boxtune.infer.generate import Answer, answer_images
from boxtune.infer.predictor import Predictor, load_predictor

__all__ = ["Answer", "Predictor", "answer_images", "find_images", "load_predictor", "predict_folder"]
