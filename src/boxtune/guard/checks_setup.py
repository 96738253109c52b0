"""What can be read off a trainer before any step: optimizer, schedule, devices, number formats."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch

from boxtune.guard.finding import Finding, name_some
from boxtune.guard.probe import peak_rates
from boxtune.guard.untouched import bare_optimizer


def check_setup(trainer: Any, whole_optimizer: bool = True) -> list[Finding]:
    """All findings that need neither data nor a step; of the optimizer only where it is the one that steps."""
    findings = check_optimizer(trainer) if whole_optimizer else []
    findings += [*check_schedule(trainer), *check_devices(trainer)]
    return [*findings, *check_compute_dtype(trainer), *check_packing(trainer)]


def is_sharded(trainer: Any) -> bool:
    """Whether DeepSpeed or FSDP holds weights and gradients in buffers of its own."""
    return bool(getattr(trainer, "is_fsdp_enabled", False) or getattr(trainer, "is_deepspeed_enabled", False))


def steps_elsewhere(trainer: Any) -> bool:
    """Whether what the trainer calls its optimizer is a stand-in, and the steps are made within the backward pass."""
    name = type(bare_optimizer(trainer.optimizer)).__name__.lower()
    return "dummy" in name or "lomo" in name


def check_optimizer(trainer: Any) -> list[Finding]:
    """Whether the optimizer holds exactly the trainable parameters."""
    optimizer = bare_optimizer(trainer.optimizer)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    mine = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    trainable = {id(parameter): name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    missing = [name for key, name in trainable.items() if key not in held]
    strange = [key for key in held if key not in mine]
    # A loss may have weights of its own; not so where the model's are missing.
    strangely: Literal["fail", "warn"] = "fail" if missing else "warn"
    frozen = [mine[key] for key in held if key in mine and key not in trainable]
    findings = []
    if missing:
        findings.append(
            Finding(
                check="optimizer.missing",
                level="fail",
                seen=f"the optimizer does not hold {len(missing)} of {len(trainable)} trainable tensors",
                where=name_some(missing),
                fix="build the optimizer after the adapter is attached and everything is unfrozen, or let the trainer",
            )
        )
    if strange:
        findings.append(
            Finding(
                check="optimizer.strange",
                level=strangely,
                seen=f"{len(strange)} tensors of the optimizer are no parameters of the model",
                fix="they were replaced after the optimizer was built: build it last",
            )
        )
    if frozen and not missing:
        findings.append(
            Finding(
                check="optimizer.frozen",
                level="warn",
                seen=f"the optimizer holds {len(frozen)} frozen tensors",
                where=name_some(frozen),
                fix="harmless but for memory, unless they were meant to be trained",
            )
        )
    if not findings:
        seen = f"the optimizer holds exactly the {len(trainable)} trainable tensors"
        findings.append(Finding(check="optimizer.missing", level="ok", seen=seen))
    return findings


def check_schedule(trainer: Any) -> list[Finding]:
    """The learning rate that is really reached over the whole run."""
    args, steps = trainer.args, trainer.state.max_steps
    groups = bare_optimizer(trainer.optimizer).param_groups
    if any(group.get("relative_step") or group["lr"] is None for group in groups):
        # Adafactor's own rates, which no schedule knows.
        return []
    highest, mean = peak_rates(trainer.optimizer, trainer.lr_scheduler, steps)
    asked, peak = float(args.learning_rate), max(highest, default=0.0)
    if peak == 0:
        why = "warm-up lasts as long as the run" if asked > 0 else "learning_rate is 0"
        return [Finding(check="rate.zero", level="fail", seen=f"the learning rate is 0 at all {steps} steps", fix=why)]
    if asked > 0 and peak < 0.5 * asked:
        seen = f"the learning rate reaches {peak:.3g} at most, asked were {asked:.3g}"
        fix = f"{steps} steps in all: shorten the warm-up (warmup_steps={args.warmup_steps})"
        return [Finding(check="rate.low", level="warn", seen=seen, fix=fix)]
    if max(mean, default=0.0) < 0.1 * peak:
        seen = f"the mean learning rate is {max(mean):.3g}, a tenth of its peak or less"
        return [Finding(check="rate.low", level="warn", seen=seen, fix="the schedule ends long before the run does")]
    seen = f"the learning rate reaches {peak:.3g}, {max(mean):.3g} in the mean of {steps} steps"
    return [Finding(check="rate.zero", level="ok", seen=seen)]


def check_devices(trainer: Any) -> list[Finding]:
    """No DataParallel round a model that is spread over devices, nothing trainable left on meta or disk."""
    findings = []
    if isinstance(trainer.model_wrapped, torch.nn.DataParallel):
        findings.append(
            Finding(
                check="device.data_parallel",
                level="fail" if getattr(trainer.model, "hf_device_map", None) else "warn",
                seen="the model is wrapped in torch.nn.DataParallel",
                fix="start with torchrun or accelerate launch, or show one GPU only (CUDA_VISIBLE_DEVICES)",
            )
        )
    away = [name for name, p in trainer.model.named_parameters() if p.device.type == "meta"]
    if away:
        findings.append(
            Finding(
                check="device.offloaded",
                level="fail" if any("lora_" in name for name in away) else "warn",
                seen=f"{len(away)} tensors are offloaded (on the meta device)",
                where=name_some(away),
                fix="they do not fit: choose a smaller model or precision, or fewer other things on the card",
            )
        )
    return findings or [Finding(check="device.offloaded", level="ok", seen="all weights are in memory")]


def check_compute_dtype(trainer: Any) -> list[Finding]:
    """4-bit layers that compute in fp32 on a GPU: right, but several times slower than asked."""
    slow = []
    for name, module in trainer.model.named_modules():
        dtype = getattr(module, "compute_dtype", None)
        if hasattr(module, "quant_state") and dtype == torch.float32 and module.weight.device.type == "cuda":
            slow.append(name)
    if not slow or not (trainer.args.bf16 or trainer.args.fp16):
        return []
    return [
        Finding(
            check="quantization.compute",
            level="warn",
            seen=f"{len(slow)} 4-bit layers compute in fp32",
            where=name_some(slow),
            fix="bnb_4bit_compute_dtype=torch.bfloat16 in BitsAndBytesConfig (a misspelt name is dropped in silence)",
        )
    ]


def check_packing(trainer: Any) -> list[Finding]:
    """Whether a 4-bit layer still hands on the gradient after it has run in evaluation mode.

    Tried on a copy of the first layer of each kind: what packs its weights for inference has no backward after it.
    """
    tried = set()
    for name, module in trainer.model.named_modules():
        # Not what PEFT puts round such a layer: that only hands its weight on.
        weight = module._parameters.get("weight")
        if not hasattr(weight, "quant_state") or module.__class__.__name__ in tried:
            continue
        tried.add(module.__class__.__name__)
        layer = copy.deepcopy(module)
        dtype = getattr(module, "compute_dtype", None) or torch.float32
        inputs = torch.randn(1, 2, _in_features(module), device=weight.device, dtype=dtype)
        first = _gradient(layer, inputs)
        try:
            layer.eval()
            with torch.no_grad():
                layer(inputs)
            layer.train()
            second = _gradient(layer, inputs)
        except RuntimeError as error:
            second, why = None, f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            why = "no gradient comes through"
        if first is not None and second is None:
            return [
                Finding(
                    check="quantization.packed",
                    level="fail" if evaluates(trainer) else "warn",
                    seen=f"after one forward pass in evaluation mode a 4-bit layer has no backward any more: {why}",
                    where=name,
                    fix="after loading, for every layer that has it: layer.support_avx512bf16_for_cpu = False",
                )
            ]
    if not tried:
        return []
    return [Finding(check="quantization.packed", level="ok", seen="4-bit layers keep their gradient after evaluation")]


def evaluates(trainer: Any) -> bool:
    """Whether the run will evaluate while it trains."""
    strategy = getattr(trainer.args, "eval_strategy", None) or getattr(trainer.args, "evaluation_strategy", "no")
    return str(getattr(strategy, "value", strategy)) != "no"


def _gradient(layer: Any, inputs: torch.Tensor) -> torch.Tensor | None:
    with torch.enable_grad():
        given = inputs.detach().clone().requires_grad_()
        out = layer(given)
        if not out.requires_grad:
            return None
        out.float().sum().backward()
    return given.grad


def _in_features(module: Any) -> int:
    return int(getattr(module, "in_features", 0) or module.weight.quant_state.shape[1])
