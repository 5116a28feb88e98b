#!/usr/bin/env python
"""Write tests/golden/training: a short PyTorch training run and single losses, on the case qwen2_notellm2.

    python make_training.py ../cases/qwen2_notellm2 ../training

training.json
    "runs": name -> hyper-parameters, the learning rate of each step and what each step gave:
        loss, loss_multimodal, loss_visual   before the update
        gradient_norm                        global 2-norm over all trainable tensors, before clipping
        temperature                          after the update (the logit t)
    Every step sees the whole batch of the case. Objective `one_tower`, no false negatives masked. The
    vision encoder is frozen; all else learns. torch.optim.AdamW with the decay on tensors of two or
    more dimensions only (so query_tokens and the token embeddings decay; norms, biases and the
    temperature do not); torch.nn.utils.clip_grad_norm_ before each step.
    "objectives": name -> losses of the stored weights (no training) under the other objectives:
        dual                     B x B logits between queries and targets, mean of both directions
        one_tower_masked, dual_masked   with `note_ids` and `known_pairs` as false negatives
        *_matryoshka             the weighted mean over MATRYOSHKA: of the embeddings' first dimensions, normalised
    "rounding": per tensor, the largest absolute difference to the same computation in float64 and the
        largest absolute value.
training.safetensors
    run.<name>.<tensor>          the tensor after the last step (LLM tensors as llm.model.*)
    run.<name>.step1.<tensor>    after the first step
    objective.<name>.grad.<tensor>   gradient of the (mICL-weighted) loss

Masking, for row i with partner p: column j leaves the softmax when j = i, or when j != p and the note of
j is the note of i, the note of p, or a known partner (in either order) of the note of i.

Key biases of the Q-Former have a zero gradient in theory; Adam turns their rounding noise into steps of
full length. They change no loss and are not written.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from reference import excluded_columns, load_case

# Adam divides each gradient by its own size, so that rounding in those near zero grows with the rate from step to
# step: at 2.5 times these, gradients off by 1e-6 of their largest change the loss of step 5 by 2e-4.
RATES = [4e-4, 8e-4, 6e-4, 4e-4, 2e-4]
RUNS = {
    "plain": dict(weight_decay=1e-3, clip_norm=1.0, learning_rates=RATES),
    # a decay and a clip that show in the fifth digit and sooner
    "strong": dict(weight_decay=0.5, clip_norm=0.05, learning_rates=RATES),
}
ADAM = dict(betas=[0.9, 0.999], epsilon=1e-8)
# Leading dimensions -> their weight; the case's embeddings have 12.
MATRYOSHKA = {2: 1.0, 5: 0.5, 12: 1.0}
# Rows 2 and 4 are one note; the note of row 0 and that of row 5 are known to go together.
NOTE_IDS = [1, 2, 3, 4, 3, 5]
KNOWN_PAIRS = [[1, 4], [2, 3], [3, 5], [1, 5]]
KEPT = ("query_tokens", "temperature", "linear.weight", "gate.trans_all.weight", "mm_projector.0.bias",
        "mm_projector.2.weight", "qformer.layernorm.weight",
        "qformer.encoder.layer.0.crossattention.attention.value.weight", "llm.model.norm.weight",
        "llm.model.embed_tokens.weight", "llm.model.layers.0.self_attn.q_proj.weight",
        "llm.model.layers.0.self_attn.q_proj.bias", "llm.model.layers.1.mlp.down_proj.weight")
KEPT_FIRST = ("query_tokens", "temperature", "linear.weight", "llm.model.norm.weight")
KEPT_GRADS = ("query_tokens", "temperature", "linear.weight", "gate.trans_all.weight",
              "mm_projector_latefusion.weight")


def trainable(model):
    """Name in the files -> parameter."""
    out = {}
    for name, p in model.named_parameters():
        if not name.startswith("vision."):
            out["llm.model." + name.removeprefix("llm.") if name.startswith("llm.") else name] = p
    return out


def train(case_dir, run, dtype):
    model, inputs, _ = load_case(case_dir, dtype)
    params = trainable(model)
    groups = [{"params": [p for p in params.values() if p.ndim >= 2], "weight_decay": run["weight_decay"]},
              {"params": [p for p in params.values() if p.ndim < 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=ADAM["betas"], eps=ADAM["epsilon"])
    steps, tensors = [], {}
    for n, rate in enumerate(run["learning_rates"]):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        out = model(inputs["input_ids"], inputs["pixel_values"].to(dtype))
        out.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), run["clip_norm"])
        optimiser.step()
        steps.append({"learning_rate": rate, "loss": out.loss.item(), "loss_multimodal": out.loss_multimodal.item(),
                      "loss_visual": out.loss_visual.item(), "gradient_norm": norm.item(),
                      "temperature": model.temperature.item()})
        if n == 0:
            tensors.update({f"step1.{k}": params[k].detach().clone() for k in KEPT_FIRST})
    tensors.update({k: params[k].detach().clone() for k in KEPT})
    return steps, tensors


def exclusions(masked):
    return excluded_columns(torch.tensor(NOTE_IDS), torch.tensor(KNOWN_PAIRS) if masked else None)


def contrastive(x, temperature, kind, excluded):
    n, half = len(x), len(x) // 2
    logits = (x @ x.T * temperature.exp()).masked_fill(excluded, float("-inf"))
    if kind == "one_tower":
        return F.cross_entropy(logits, (torch.arange(n) + half) % n)
    own = torch.arange(half)
    return (F.cross_entropy(logits[:half, half:], own) + F.cross_entropy(logits[half:, :half], own)) / 2


def matryoshka(x, temperature, kind, excluded, prefixes):
    losses = [weight * contrastive(F.normalize(x[:, :dim], dim=-1), temperature, kind, excluded)
              for dim, weight in prefixes.items()]
    return sum(losses) / sum(prefixes.values())


def objective(case_dir, kind, masked, dtype, prefixes):
    model, inputs, _ = load_case(case_dir, dtype)
    out = model(inputs["input_ids"], inputs["pixel_values"].to(dtype))
    prefixes = prefixes or {out.embedding["final"].shape[1]: 1.0}
    multimodal, visual = (matryoshka(out.embedding[place], model.temperature, kind, exclusions(masked), prefixes)
                          for place in ("final", "visual"))
    if kind == "one_tower" and not masked and len(prefixes) == 1:
        torch.testing.assert_close(multimodal, out.loss_multimodal)
    cfg = model.cfg
    loss = (cfg.text_weight * multimodal + cfg.vision_weight * visual) / (cfg.text_weight + cfg.vision_weight)
    loss.backward()
    params = trainable(model)
    values = {"loss": loss.item(), "loss_multimodal": multimodal.item(), "loss_visual": visual.item()}
    return values, {f"grad.{k}": params[k].grad for k in KEPT_GRADS}


def everything(case_dir, dtype):
    runs, objectives, tensors = {}, {}, {}
    for name, run in RUNS.items():
        steps, kept = train(case_dir, run, dtype)
        runs[name] = {**ADAM, **run, "steps": steps}
        tensors.update({f"run.{name}.{k}": v for k, v in kept.items()})
    for kind in ("one_tower", "dual"):
        for suffix, masked, prefixes in (("", False, None), ("_masked", True, None), ("_matryoshka", True, MATRYOSHKA)):
            name = kind + suffix
            objectives[name], kept = objective(case_dir, kind, masked, dtype, prefixes)
            tensors.update({f"objective.{name}.{k}": v for k, v in kept.items()})
    return runs, objectives, tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    runs, objectives, tensors = everything(a.case, torch.float32)
    wide_runs, wide_objectives, wide = everything(a.case, torch.float64)
    rounding = {k: {"max_abs_diff_to_f64": float(f"{(v.double() - wide[k]).abs().max():.3g}"),
                    "max_abs": float(f"{v.abs().max():.3g}")} for k, v in tensors.items()}
    for name, run in runs.items():
        for key in run["steps"][0]:
            rounding[f"run.{name}.steps.{key}"] = {
                "max_abs_diff_to_f64": max(abs(x[key] - y[key]) for x, y in zip(run["steps"], wide_runs[name]["steps"]))}
    a.out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, a.out / "training.safetensors")
    (a.out / "training.safetensors").chmod(0o644)
    report = {"case": a.case.name, "note_ids": NOTE_IDS, "known_pairs": KNOWN_PAIRS, "runs": runs,
              "objectives": objectives, "rounding": rounding}
    (a.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
