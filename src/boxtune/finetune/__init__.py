"""From samples and a model's family to a trained adapter: load, adapt, collate, train, reload."""

from boxtune.finetune.adapters import Plan, free_weights, plan_adapter, require_rates, targets_table
from boxtune.finetune.card import build_card, read_environment
from boxtune.finetune.collator import TrainingCollator
from boxtune.finetune.device import load_to_train, plan_training
from boxtune.finetune.encode import Encoder
from boxtune.finetune.lengths import Longest, fit_samples
from boxtune.finetune.load import Loaded, Placement, build_encoder, choose_placement, forget, load_base
from boxtune.finetune.planner import StepPlan
from boxtune.finetune.reload import load_adapter, logits_digest, save_adapter
from boxtune.finetune.resume import bind, open_folder
from boxtune.finetune.source import ModelSource, find_model, fingerprint
from boxtune.finetune.talk import Talk, read_talk
from boxtune.finetune.trainer import build_trainer

__all__ = [
    "Encoder",
    "Loaded",
    "Longest",
    "ModelSource",
    "Placement",
    "Plan",
    "StepPlan",
    "Talk",
    "TrainingCollator",
    "bind",
    "build_card",
    "build_encoder",
    "build_trainer",
    "choose_placement",
    "find_model",
    "fingerprint",
    "fit_samples",
    "forget",
    "free_weights",
    "load_adapter",
    "load_base",
    "load_to_train",
    "logits_digest",
    "open_folder",
    "plan_adapter",
    "plan_training",
    "read_environment",
    "read_talk",
    "require_rates",
    "save_adapter",
    "targets_table",
]
