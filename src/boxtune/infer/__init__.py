"""A model and images -> boxes."""

from boxtune.infer.answer import Answer
from boxtune.infer.calibrate import fit_calibration
from boxtune.infer.confidence import POOLED, Calibration
from boxtune.infer.engine import Engine
from boxtune.infer.folder import find_images, predict_folder
from boxtune.infer.generate import LocalEngine
from boxtune.infer.http import HttpEngine
from boxtune.infer.predictor import Predictor, load_predictor, read_card
from boxtune.infer.selection import Selection
from boxtune.infer.served import load_served
from boxtune.infer.split import answer_split
from boxtune.infer.tiled import answer_images

__all__ = [
    "POOLED",
    "Answer",
    "Calibration",
    "Engine",
    "HttpEngine",
    "LocalEngine",
    "Predictor",
    "Selection",
    "answer_images",
    "answer_split",
    "find_images",
    "fit_calibration",
    "load_predictor",
    "load_served",
    "predict_folder",
    "read_card",
]
