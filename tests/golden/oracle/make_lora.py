#!/usr/bin/env python
"""Write tests/golden/lora: LoRA training steps of PyTorch and PEFT, on the case qwen2_notellm2.

    python make_lora.py ../cases/qwen2_notellm2 ../lora

<run>/adapter_config.json, <run>/adapter_model.safetensors
    The adapters before training, as PEFT writes them for a model without its LM head. B is random, not
    zero, so that A has a gradient.
lora.json
    "runs": name -> hyper-parameters and what each step gave, as in training.json, and "rounding": per
    tensor the largest absolute difference to the same computation in float64, and its largest value.
lora.safetensors
    <run>.grad.<tensor>   gradient of the first loss, for every adapter and some tensors of the head
    <run>.<tensor>        the tensor after the last step

Adapter tensors have the names that PEFT gives them for a causal model, without `base_model.model.`. The
language model itself is frozen; connector, gate, head and temperature learn. AdamW decays tensors of two or more
dimensions, A and B among them, as the optimiser groups of `transformers.Trainer` do.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from reference import load_case

RATES = [4e-4, 8e-4, 6e-4, 4e-4, 2e-4]  # as in make_training.py, and for its reason
COMMON = dict(weight_decay=1e-2, clip_norm=1.0, betas=[0.9, 0.999], epsilon=1e-8, learning_rates=RATES)
RUNS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "rslora": dict(r=3, lora_alpha=6, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], use_rslora=True),
    "all_linear": dict(r=2, lora_alpha=3, target_modules="all-linear"),
}
HEAD = ("temperature", "linear.weight", "query_tokens", "gate.trans_all.weight")


def adapted(case_dir, lora, dtype):
    """The case's model with adapters in its LLM, and the PEFT wrapper of the LLM."""
    model, inputs, _ = load_case(case_dir, dtype)
    torch.manual_seed(1)
    wrapper = get_peft_model(model.llm, LoraConfig(**lora), autocast_adapter_dtype=False)
    gen = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in sorted(model.llm.named_parameters()):
            if "lora_" in name:
                bound = p.shape[1] ** -0.5 if "lora_A" in name else 0.2
                values = (2 * torch.rand(p.shape, generator=gen) - 1) * bound
                p.copy_(values)
    return model, inputs, wrapper


def trainable(model):
    """Name in the files -> parameter."""
    out = {}
    for name, p in model.named_parameters():
        if name.startswith("vision."):
            continue
        if name.startswith("llm."):
            assert p.requires_grad == ("lora_" in name), name
            if p.requires_grad:
                out["model." + name.removeprefix("llm.").replace(".default.", ".")] = p
        else:
            out[name] = p
    return out


def train(case_dir, lora, dtype, folder=None):
    model, inputs, wrapper = adapted(case_dir, lora, dtype)
    if folder is not None:
        wrapper.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        (folder / "adapter_model.safetensors").chmod(0o644)
    params = trainable(model)
    kept = [name for name in params if "lora_" in name or name in HEAD]
    groups = [{"params": [p for p in params.values() if p.ndim >= 2], "weight_decay": COMMON["weight_decay"]},
              {"params": [p for p in params.values() if p.ndim < 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=COMMON["betas"], eps=COMMON["epsilon"])
    steps, tensors = [], {}
    for n, rate in enumerate(RATES):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        out = model(inputs["input_ids"], inputs["pixel_values"].to(dtype))
        out.loss.backward()
        if n == 0:
            tensors.update({f"grad.{k}": params[k].grad.clone() for k in kept})
        norm = torch.nn.utils.clip_grad_norm_(params.values(), COMMON["clip_norm"])
        optimiser.step()
        steps.append({"loss": out.loss.item(), "gradient_norm": norm.item(), "temperature": model.temperature.item()})
    tensors.update({k: params[k].detach().clone() for k in kept})
    return steps, tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    runs, tensors = {}, {}
    for name, lora in RUNS.items():
        steps, kept = train(a.case, lora, torch.float32, a.out / name)
        wide_steps, wide = train(a.case, lora, torch.float64)
        rounding = {k: {"max_abs_diff_to_f64": float(f"{(v.double() - wide[k]).abs().max():.3g}"),
                        "max_abs": float(f"{v.abs().max():.3g}")} for k, v in kept.items()}
        for key in steps[0]:
            rounding[f"steps.{key}"] = {"max_abs_diff_to_f64": max(abs(x[key] - y[key]) for x, y in zip(steps, wide_steps))}
        runs[name] = {**COMMON, **lora, "steps": steps, "rounding": rounding}
        tensors.update({f"{name}.{k}": v.contiguous() for k, v in kept.items()})
    save_file(tensors, a.out / "lora.safetensors")
    (a.out / "lora.safetensors").chmod(0o644)
    (a.out / "lora.json").write_text(json.dumps({"case": a.case.name, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
