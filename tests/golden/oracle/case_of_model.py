#!/usr/bin/env python
"""Write what PyTorch computes with a model folder of mlrm, for `mlrm verify`: hidden states, embeddings, losses,
gradients, and saliency by its three formulas.

    mlrm data batches CONFIG --steps 1 --out BATCHES
    python case_of_model.py MODEL BATCHES CASE
    mlrm verify CASE

CASE is a case folder (see make_cases.py) whose weights are links to those of MODEL. Adapters are to be merged before
(`mlrm export RUN --out MODEL --merge`).
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from make_cases import expectations
from model_folder import fed, open_model
from reference import VARIANTS, quiet_transformers

WEIGHTS = {"multimodal_weight": 9.0, "visual_weight": 1.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("batches", type=Path)
    parser.add_argument("out", type=Path)
    a = parser.parse_args()
    quiet_transformers()
    if (a.model / "adapter").is_dir():
        sys.exit(f"{a.model} has adapters: merge them first, by `mlrm export --merge`")
    model, qformer = open_model(a.model, WEIGHTS)
    inputs, _ = fed(load_file(a.batches), 1)
    a.out.mkdir(parents=True)
    for part in ("llm", "vision", "head.safetensors"):
        if (a.model / part).exists():
            (a.out / part).symlink_to((a.model / part).resolve())
    variant = next(name for name, flags in VARIANTS.items()
                   if flags == (model.cfg.image_tokens, model.cfg.micl, model.cfg.late_fusion))
    case = {"variant": variant, "config": dataclasses.asdict(model.cfg), "qformer_config": qformer}
    (a.out / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    save_file(inputs, a.out / "inputs.safetensors")
    stored = load_file(a.model / "llm" / "model.safetensors")
    prefix = "model." if any(name.startswith("model.") for name in stored) else ""
    expected = expectations(model, {"pixel_values": None, **inputs}, prefix, "few")
    save_file(expected, a.out / "expected.safetensors")
    print(f"{len(expected)} tensors of {len(inputs['input_ids'])} notes; loss {expected['loss'].item():.6f}")


if __name__ == "__main__":
    main()
