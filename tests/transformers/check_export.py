#!/usr/bin/env python
"""Check that folders written by `mlrm export` load in `transformers` and compute the same.

    python check_export.py ORIGINAL EXPORTED [ORIGINAL EXPORTED]...

Each pair is a language model or a vision encoder as Hugging Face's libraries save it, and what `mlrm export` made
of it in the same number format; of a whole BLIP-2 EXPORTED is one half. Both are loaded by `from_pretrained` of the
family's class; no tensor of the model may be missing from the exported folder, but for ViT's pooler. The same input goes
through both, and every hidden state has to be equal bit for bit: the weights are the same. A decoder whose LM head is its
table of words has to load as a causal language model, too, with nothing missing. A tokenizer beside the weights has to
load and to fit the model's rows.

A folder whose `model_type` has no class in `transformers` is said to be skipped. Exit code 1 where anything differs.
Needs torch, transformers 5 and safetensors (versions: tests/golden/README.md).
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


# Encoders that `AutoModel` does not know, or knows as a part of more.
CLASSES = {"blip_2_vision_model": transformers.Blip2VisionModel, "clip": transformers.CLIPVisionModel,
           "siglip": transformers.SiglipVisionModel}


def family_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def load_half(folder: Path, half: str, dtype):
    """The half of a whole BLIP-2 that has the `model_type` `half`."""
    whole = transformers.Blip2ForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager").eval()
    return whole.vision_model if half == "blip_2_vision_model" else whole.language_model.model


# What comes after the features, and is not exported.
UNREAD = ("pooler.",)


def load(folder: Path, dtype="auto"):
    """The model, by default in the number format that its config names, in evaluation mode, and what its checkpoint
    lacks."""
    family = family_of(folder)
    model, info = CLASSES.get(family, AutoModel).from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    return model.eval(), sorted(name for name in info["missing_keys"] if not name.startswith(UNREAD))


def inputs_for(model, config) -> dict:
    """Two rows of token ids, or two pictures."""
    generator = torch.Generator().manual_seed(7)
    if hasattr(config, "image_size"):
        side = config.image_size
        pixels = torch.randn(2, 3, side, side, generator=generator)
        return {"pixel_values": pixels.to(model.dtype)}
    return {"input_ids": torch.randint(0, config.vocab_size, (2, 11), generator=generator)}


def hidden_states(model) -> list[torch.Tensor]:
    config = model.config
    with torch.no_grad():
        output = model(**inputs_for(model, config), output_hidden_states=True)
    return [*output.hidden_states, output.last_hidden_state]


def check_tokenizer(folder: Path, rows: int) -> list[str]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return []
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = max(tokenizer.get_vocab().values()) + 1
    return [] if words <= rows else [f"{words} tokens, but {rows} rows"]


def check(original: Path, exported: Path) -> list[str]:
    """What is wrong with `exported`."""
    model, missing = load(exported)
    # The weights' own: a miniature names the format of the checkpoint that it stands for.
    if family_of(original) == "blip-2":
        expected_model = load_half(original, family_of(exported), model.dtype)
    else:
        expected_model, _ = load(original, model.dtype)
    findings = [f"missing: {name}" for name in missing]
    if hasattr(model.config, "vocab_size") and model.config.tie_word_embeddings:
        _, info = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
        findings += [f"missing for a causal language model: {name}" for name in sorted(info["missing_keys"])]
    if type(model) is not type(expected_model):
        findings.append(f"class {type(model).__name__}, not {type(expected_model).__name__}")
    expected, computed = hidden_states(expected_model), hidden_states(model)
    for index, (a, b) in enumerate(zip(expected, computed, strict=True)):
        if a.dtype != b.dtype or not torch.equal(a, b):
            error = (a.float() - b.float()).abs().max().item()
            findings.append(f"hidden state {index}: {b.dtype} and {a.dtype}, largest error {error:.3g}")
    if hasattr(model.config, "vocab_size"):
        findings += check_tokenizer(exported, model.config.vocab_size)
    return findings


def main() -> int:
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders or len(folders) % 2:
        print(__doc__, file=sys.stderr)
        return 2
    failed = False
    for original, exported in zip(folders[::2], folders[1::2]):
        family = family_of(exported)
        if family not in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
            print(f"skipped {original}: transformers has no class for `{family}`")
            continue
        name = AutoConfig.from_pretrained(exported).__class__.__name__
        findings = check(original, exported)
        failed |= bool(findings)
        print(f"{'DIFFERENT' if findings else 'same'} {original} ({name})")
        for finding in findings:
            print(f"    {finding}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
