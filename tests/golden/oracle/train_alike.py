#!/usr/bin/env python
"""Train the reference as a run of mlrm was trained, and compare every step.

    mlrm train C --set run.dir=START --set train.max_steps=0   # the model that the run begins with
    mlrm data batches C --out BATCHES                          # what its steps are fed
    mlrm train C --set run.dir=RUN
    python train_alike.py START/model BATCHES RUN OUT

From the weights of START/model the reference takes the steps of RUN in plain PyTorch: torch.optim.AdamW, the
schedules of transformers, torch.nn.utils.clip_grad_norm_. Tensors of two or more dimensions are decayed. With
adapters (START/model/adapter) they are PEFT's, and the language model is frozen. Prints the loss and the gradient
norm of each step beside those of RUN/events.jsonl, and exits with 1 if a loss is off by more than --tolerance.

OUT becomes a model folder with the trained weights, so that both are measured alike:

    mlrm train C --set run.dir=AGAIN --set model.path=OUT --set train.max_steps=0
    python train_alike.py --compare RUN AGAIN

prints Recall@10 of both with bootstrap intervals over the queries, and of their difference query by query; it exits
with 1 if that of AGAIN is not within the interval of RUN, or the interval of the difference leaves 0 out.
"""
from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from model_folder import adapter_parameters, fed, open_model
from reference import excluded_columns, quiet_transformers


def save_model(model, start: Path, out: Path):
    """A copy of the folder `start` with the weights of `model`."""
    shutil.copytree(start, out)
    for sums in out.rglob("checksums.json"):
        sums.unlink()  # they are those of the old weights
    save_file({k: v.contiguous() for k, v in model.head_state_dict().items()}, out / "head.safetensors")
    adapter = out / "adapter"
    if adapter.is_dir():
        tensors = {name: p.detach().contiguous() for name, p in adapter_parameters(model, adapter).items()}
        save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        return
    path = out / "llm" / "model.safetensors"
    new = model.llm.state_dict()
    tensors = {name: new[name.removeprefix("model.")].contiguous() for name in load_file(path)}
    save_file(tensors, path, metadata={"format": "pt"})


def loss_of(out, cfg, temperature, excluded):
    """(loss, multimodal loss): one tower, without the columns that are no negatives."""
    losses = {}
    for place, x in out.projected.items():
        x = F.normalize(x, dim=-1, eps=0.0)
        logits = (x @ x.T * temperature.exp()).masked_fill(excluded, float("-inf"))
        partner = (torch.arange(len(x)) + len(x) // 2) % len(x)
        losses[place] = F.cross_entropy(logits, partner)
    if "visual" not in losses:
        return losses["final"], losses["final"]
    weights = cfg.text_weight, cfg.vision_weight
    loss = (weights[0] * losses["final"] + weights[1] * losses["visual"]) / sum(weights)
    return loss, losses["final"]


def optimiser_and_schedule(params, settings, steps):
    from transformers import get_constant_schedule, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    groups = [{"params": [p for p in params if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
              {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=tuple(settings["betas"]),
                                  eps=settings["epsilon"])
    warmup = round(settings["warmup_ratio"] * steps)
    if settings["schedule"] == "constant":
        return optimiser, get_constant_schedule(optimiser)
    with_warmup = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}
    return optimiser, with_warmup[settings["schedule"]](optimiser, warmup, steps)


def check_settings(config: dict):
    """Refuses what the steps below do not do."""
    objective, train = config["objective"], config["train"]
    here = {"objective.kind": (objective["kind"], "one_tower"),
            "objective.correct_sampling_bias": (objective["correct_sampling_bias"], False),
            "objective.matryoshka_dims": (objective.get("matryoshka_dims", []), []),
            "objective.learn_temperature": (objective["learn_temperature"], True),
            "model.llm.lora.dropout": (config["model"]["llm"]["lora"]["dropout"], 0.0)}
    wrong = [f"{key} = {found!r}, only {can!r} is trained here" for key, (found, can) in here.items() if found != can]
    if train["schedule"] == "constant" and train["warmup_ratio"] > 0:
        wrong.append("train.warmup_ratio > 0 with a constant schedule")
    if wrong:
        sys.exit("\n".join(wrong))


def logged_steps(run: Path) -> dict:
    events = map(json.loads, open(run / "events.jsonl"))
    return {e["step"]: e for e in events if e["event"] == "train_step"}


def train(start: Path, batches: Path, run: Path, out: Path, tolerance: float) -> int:
    quiet_transformers()
    config = tomllib.loads((run / "config.toml").read_text())
    check_settings(config)
    settings, objective = config["train"], config["objective"]
    batches, logged = load_file(batches), logged_steps(run)
    steps = max(logged)
    model, _ = open_model(start, objective)
    if config["model"]["llm"]["tune"] == "frozen":
        model.llm.requires_grad_(False)
    params = [p for p in model.parameters() if p.requires_grad]
    optimiser, schedule = optimiser_and_schedule(params, settings, steps)
    known = batches["train_pairs"] if objective["mask_false_negatives"] else None
    worst, began = {}, time.process_time()
    for step in range(1, steps + 1):
        inputs, rows = fed(batches, step)
        result = model(**inputs, compute_loss=False)
        excluded = excluded_columns(rows, known)
        loss, multimodal = loss_of(result, model.cfg, model.temperature, excluded)
        optimiser.zero_grad()
        loss.backward()
        limit = settings["clip_norm"] or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(params, limit)
        rate = optimiser.param_groups[0]["lr"]
        temperature = model.temperature.item()
        optimiser.step()
        schedule.step()
        own = {"loss": loss.item(), "loss_multimodal": multimodal.item(), "gradient_norm": norm.item(),
               "learning_rate": rate, "temperature_logit": temperature}
        for name, value in own.items():
            off = abs(logged[step][name] - value) / max(abs(value), 1e-12)
            worst[name] = max(worst.get(name, (0.0, 0)), (off, step))
        if step in (1, steps) or step % 10 == 0:
            print(f"step {step:4}: loss {own['loss']:.6f}, in mlrm {logged[step]['loss']:.6f}; gradient norm "
                  f"{own['gradient_norm']:.5f}, in mlrm {logged[step]['gradient_norm']:.5f}", flush=True)
    save_model(model, start, out)
    for name, (off, step) in worst.items():
        print(f"{name}: largest relative difference {off:.2e}, at step {step}")
    print(f"{steps} steps in {time.process_time() - began:.1f} s of processor time")
    return int(max(worst["loss"][0], worst["loss_multimodal"][0]) > tolerance)


def compare(run: Path, again: Path) -> int:
    """Recall@10 of two runs on the same queries."""
    values, queries = [], []
    for folder in (run, again):
        record = json.loads((folder / "queries.json").read_text())
        queries.append(record["queries"])
        values.append(np.array(next(iter(record["models"].values()))["recall@10"]))
    if queries[0] != queries[1]:
        sys.exit("the runs have other queries")
    draws = np.random.default_rng(0).integers(len(queries[0]), size=(2000, len(queries[0])))
    interval = lambda v: np.quantile(v[draws].mean(1), [0.025, 0.975])
    (low, high), (less, more) = interval(values[0]), interval(values[1] - values[0])
    mean = [v.mean() for v in values]
    print(f"Recall@10 {mean[0]:.4f} ({low:.4f} to {high:.4f}), of PyTorch {mean[1]:.4f}; difference "
          f"{mean[1] - mean[0]:+.4f} ({less:+.4f} to {more:+.4f}), {len(queries[0])} queries")
    return int(not (low <= mean[1] <= high and less <= 0 <= more))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--tolerance", type=float, default=0.01, help="of a loss, relative")
    parser.add_argument("--compare", action="store_true")
    a = parser.parse_args()
    if len(a.paths) != (2 if a.compare else 4):
        parser.error("START/model BATCHES RUN OUT, or --compare RUN AGAIN")
    return compare(*a.paths) if a.compare else train(*a.paths, a.tolerance)


if __name__ == "__main__":
    sys.exit(main())
