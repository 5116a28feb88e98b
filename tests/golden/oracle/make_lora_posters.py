#!/usr/bin/env python
"""Write a golden case with LoRA adapters on real notes and pictures, for `mlrm verify`.

    python make_lora_posters.py DATA OUT [--pairs 8]
    mlrm verify OUT

DATA holds notes.jsonl, interactions.csv and the pictures that the notes name (datasets/movielens/README.md tells how
to make one). The batch: the first pairs of notes that one user saw in a row, within 7 days. Prompts are the mICL
ones, in words of a byte-pair tokenizer trained on the notes; pictures are 64 pixels wide. The model is a whole
NoteLLM-2 of random weights (4 layers of width 128) with adapters of rank 8, scale 2, beside every linear map of its
LLM, saved by PEFT to OUT/adapter; B is random, so that A has a gradient. Expected are the losses, the embeddings, and
the gradient of every tensor that learns: adapters, connector, gate, head, temperature.
"""
from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Blip2QFormerConfig, CLIPVisionConfig, CLIPVisionModel, Qwen2Config

from make_cases import randomise
from reference import NoteLLM2Config, NoteLLM2Reference, load_case

SIDE = 64
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
WEEK = 7 * 24 * 3600


def read_pairs(data, notes, count):
    """The first `count` pairs of notes that a user saw in a row; no note twice."""
    with open(data / "interactions.csv", newline="") as file:
        rows = sorted((r["user_id"], float(r["timestamp"]), r["note_id"]) for r in csv.DictReader(file))
    pairs, used = [], set()
    for (user, then, a), (other, now, b) in zip(rows, rows[1:]):
        fresh = a != b and not {a, b} & used and a in notes and b in notes
        if user == other and 0 < now - then <= WEEK and fresh:
            pairs.append((a, b))
            used |= {a, b}
            if len(pairs) == count:
                return pairs
    raise SystemExit(f"only {len(pairs)} pairs in {data}")


def pixels(data, note):
    picture = Image.open(data / note["image"]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return ((np.asarray(picture, dtype=np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)


def prompts(notes, chosen):
    """(padded ids, ids by name) of the mICL prompt."""
    texts = [" ".join([n["title"], *n["topics"], n["content"]]) for n in notes.values()]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False))
    size = words.get_vocab_size()
    ids = {"pad": size, "image": size + 1, "image_emb": size + 2, "vocab": size + 3}
    encode = lambda text: words.encode(text).ids
    rows = []
    for note in chosen:
        body = {"title": note["title"][:20], "topics": ",".join(note["topics"]), "content": note["content"][:80]}
        rows.append(encode('Note: {"image":"') + [ids["image"]] + encode('"}, compress this note into one word: "')
                    + [ids["image_emb"]] + encode('". Note: ' + json.dumps(body) + ', compress this note into one word: "'))
    width = max(map(len, rows))
    return torch.tensor([row + [ids["pad"]] * (width - len(row)) for row in rows]), ids


def build(data, out, count):
    """Weights, adapters and inputs on disk."""
    notes = {n["id"]: n for n in map(json.loads, open(data / "notes.jsonl")) if n.get("image")}
    pairs = read_pairs(data, notes, count)
    chosen = [notes[a] for a, _ in pairs] + [notes[b] for _, b in pairs]
    input_ids, ids = prompts(notes, chosen)
    gen = torch.Generator().manual_seed(0)
    cfg = NoteLLM2Config.for_variant(
        "notellm2", num_query_tokens=4, mm_projector_type="mlp2x_gelu", embedding_dim=64, pad_token_id=ids["pad"],
        image_token_id=ids["image"], image_emb_token_id=ids["image_emb"])
    llm = AutoModelForCausalLM.from_config(Qwen2Config(
        vocab_size=ids["vocab"], hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=352, pad_token_id=ids["pad"], bos_token_id=None, eos_token_id=None, tie_word_embeddings=False))
    vision = CLIPVisionModel._from_config(CLIPVisionConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=3, image_size=SIDE, patch_size=16))
    qformer = dict(vocab_size=0, pad_token_id=None, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                   intermediate_size=256, encoder_hidden_size=96)
    qcfg = Blip2QFormerConfig(**qformer)
    model = NoteLLM2Reference(cfg, llm.base_model, vision, qcfg)
    for part in (llm, vision, torch.nn.ModuleDict({k: m for k, m in model.named_children() if k not in ("llm", "vision")})):
        randomise(part, gen)
    with torch.no_grad():
        model.query_tokens.copy_(0.7 * torch.randn(model.query_tokens.shape, generator=gen))
        model.temperature.fill_(3.0)
    llm.save_pretrained(out / "llm")
    vision.save_pretrained(out / "vision")
    path = out / "vision" / "model.safetensors"
    save_file({"vision_model." + k.removeprefix("vision_model."): v for k, v in load_file(path).items()}, path)
    save_file({k: v.contiguous() for k, v in model.head_state_dict().items()}, out / "head.safetensors")
    images = torch.from_numpy(np.stack([pixels(data, note) for note in chosen])).contiguous()
    save_file({"input_ids": input_ids, "pixel_values": images}, out / "inputs.safetensors")
    case = {"family": "qwen2", "variant": "notellm2", "config": dataclasses.asdict(cfg), "qformer_config": dict(
        qformer, cross_attention_frequency=qcfg.cross_attention_frequency, layer_norm_eps=qcfg.layer_norm_eps)}
    (out / "case.json").write_text(json.dumps(case, indent=1) + "\n")

    torch.manual_seed(1)
    wrapper = get_peft_model(model.llm, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    with torch.no_grad():
        for name, p in sorted(model.llm.named_parameters()):
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=gen))
    wrapper.save_pretrained(out / "adapter")


def expect(out):
    """What PyTorch and PEFT compute from what is on disk."""
    model, inputs, _ = load_case(out)
    PeftModel.from_pretrained(model.llm, out / "adapter", is_trainable=True)
    result = model(inputs["input_ids"], inputs["pixel_values"])
    result.loss.backward()
    expected = {"loss": result.loss, "loss.multimodal": result.loss_multimodal, "loss.visual": result.loss_visual}
    expected.update({f"{place}.embedding": v for place, v in result.embedding.items()})
    for name, p in model.named_parameters():
        if p.grad is not None and name.startswith("llm."):
            expected["grad.llm.model." + name.removeprefix("llm.").replace(".default.", ".")] = p.grad
        elif p.grad is not None:
            expected[f"grad.{name}"] = p.grad
    adapters = sum(".lora_" in name for name in expected)
    assert adapters == 2 * 7 * 4, adapters
    save_file({k: v.detach().contiguous().clone() for k, v in expected.items()}, out / "expected.safetensors")
    print(f"{len(inputs['input_ids'])} notes of {inputs['input_ids'].shape[1]} ids; loss {result.loss.item():.6f}; "
          f"{len(expected)} tensors, {adapters} of them gradients of adapters. Now: mlrm verify {out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    build(a.data, a.out, a.pairs)
    expect(a.out)


if __name__ == "__main__":
    main()
