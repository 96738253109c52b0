"""The text that the embedded tokenizer learned its merges from: prompts, and names that data sets use."""

from __future__ import annotations

from boxtune.families.qwen2_vl import NOTHING, QWEN2_VL
from boxtune.tiny.scene_names import NAMES as SCENE_NAMES

NAMES = (
    "object person face hand car truck bus bicycle motorcycle plate sign light dog cat bird horse cow sheep "
    "table chair bottle cup bowl book phone laptop mouse keyboard clock vase tooth ball box bag fruit apple banana "
    "cell red white blood platelet RBC WBC Platelets piece king queen rook bishop knight pawn black "
    "board chip Raspberry_Pi_3 Arduino_Nano Heltec_ESP32_Lora ESP8266 controller "
    "nutrition nutrition-table label barcode logo text title figure paragraph list form stamp signature receipt "
    "circle square triangle star ring cross line arrow rectangle ellipse polygon digit number letter word "
    "green blue yellow orange purple pink brown gray small large striped dotted filled outlined"
).split()

WORDS: tuple[str, ...] = (
    *([QWEN2_VL.prompt((), "")] * 40),
    *([NOTHING] * 20),
    *("Detect the bounding box of each:" for _ in range(20)),
    *(name for name in NAMES for _ in range(2)),
    *(name for name in SCENE_NAMES for _ in range(4)),
    *(["(1,2),(3,4)"] * 40),
)
