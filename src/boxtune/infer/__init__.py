"""A model and images -> boxes."""

from boxtune.infer.engine import Answer, Engine
from boxtune.infer.folder import find_images, predict_folder
from boxtune.infer.generate import LocalEngine
from boxtune.infer.predictor import Predictor, load_predictor
from boxtune.infer.split import answer_split
from boxtune.infer.tiled import answer_images

__all__ = [
    "Answer",
    "Engine",
    "LocalEngine",
    "Predictor",
    "answer_images",
    "answer_split",
    "find_images",
    "load_predictor",
    "predict_folder",
]
