#!/usr/bin/env python
"""Time a plain PyTorch + PEFT loop over notes with posters: the rival of a whole recipe, not of a step alone.

    python benches/pytorch_recipe.py --data DIR --llm SmolLM2-135M --vision dinov2-small --pairs 64 --steps 6
    mlrm train configs/movielens-pretrained.toml --set data.root=DIR --set train.max_steps=… …

The loop does what such loops do: each step two notes a pair are taken, their JPEGs are decoded and prepared, their
prompts (the shipped English mICL template: title and topics) are tokenised and padded to the longest; the frozen encoder reads every
picture again, the language model learns by adapters on all linear maps, products are in bf16 (torch.autocast). The
model is tests/golden/oracle/reference.py on `transformers` modules, with the connector of
configs/movielens-pretrained.toml. Pairs are drawn at random (seed 0): it is the time that is asked for.

Prints one JSON object: notes per second and the medians of a step's parts after the first step.
Needs torch, transformers 5, peft, pillow and numpy.
"""
from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "golden" / "oracle"))
from reference import NoteLLM2Config, NoteLLM2Reference, quiet_transformers  # noqa: E402

PROMPT = ('Note: {{"image":"<IMG>"}}, compress this note into one word: "<IMG_EMB>". Note: {{"title":"{title}",'
          '"topics":"{topics}","content":""}}, compress this note into one word: "')


def build(a):
    """The reference with pre-trained parts, adapters in the language model, and its tokenizer."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModel, AutoTokenizer, Blip2QFormerConfig

    tokenizer = AutoTokenizer.from_pretrained(a.llm)
    tokenizer.add_tokens(["<IMG>", "<IMG_EMB>"], special_tokens=True)
    llm = AutoModel.from_pretrained(a.llm, dtype=torch.float32)
    llm.resize_token_embeddings(len(tokenizer))
    llm.requires_grad_(False)
    llm = inject_adapter_in_model(
        LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules="all-linear", bias="none"), llm)
    vision = AutoModel.from_pretrained(a.vision, dtype=torch.float32).requires_grad_(False)
    connector = Blip2QFormerConfig(
        vocab_size=0, pad_token_id=None, hidden_size=192, num_hidden_layers=2, num_attention_heads=6,
        intermediate_size=768, encoder_hidden_size=vision.config.hidden_size, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0)
    config = NoteLLM2Config.for_variant(
        "notellm2", num_query_tokens=4, embedding_dim=128, pad_token_id=tokenizer.eos_token_id,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG>"),
        image_emb_token_id=tokenizer.convert_tokens_to_ids("<IMG_EMB>"))
    return NoteLLM2Reference(config, llm, vision, connector).train(), tokenizer


def pixels(path, side=224):
    """A picture as the encoder reads it: short edge to 256, the middle 224 by 224, ImageNet's mean and deviation."""
    picture = Image.open(path).convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize([max(round(edge * scale), side) for edge in picture.size], Image.Resampling.BICUBIC)
    left, top = ((edge - side) // 2 for edge in picture.size)
    values = np.asarray(picture.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    values = (values - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)


def batch(a, notes, tokenizer, draw):
    """Ids, padded on the right, and pixels of two notes a pair."""
    chosen = draw.sample(notes, 2 * a.pairs)
    texts = [PROMPT.format(title=note["title"][:60], topics=",".join(note["topics"][:6])) for note in chosen]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    longest = max(map(len, ids))
    ids = torch.tensor([row + [tokenizer.eos_token_id] * (longest - len(row)) for row in ids])
    return ids, torch.stack([pixels(a.data / note["image"]) for note in chosen])


def step(a, model, optimiser, notes, tokenizer, draw):
    """Seconds of a step's parts, and its positions."""
    seconds = {}
    encode = NoteLLM2Reference.encode_vision

    def timed_encode(values):
        begin = time.perf_counter()
        found = encode(model, values)
        seconds["vision"] = time.perf_counter() - begin
        return found

    model.encode_vision = timed_encode
    marks = [time.perf_counter()]
    ids, values = batch(a, notes, tokenizer, draw)
    marks.append(time.perf_counter())
    with torch.autocast("cpu", torch.bfloat16, enabled=not a.f32):
        loss = model(ids, values).loss
    marks.append(time.perf_counter())
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimiser.step()
    optimiser.zero_grad()
    marks.append(time.perf_counter())
    seconds["data"] = marks[1] - marks[0]
    seconds["forward"] = marks[2] - marks[1] - seconds["vision"]
    seconds["backward_and_update"] = marks[3] - marks[2]
    seconds["step"] = marks[3] - marks[0]
    return seconds, ids.shape[1]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with notes.jsonl and its pictures")
    p.add_argument("--llm", required=True)
    p.add_argument("--vision", required=True)
    p.add_argument("--pairs", type=int, default=64)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--steps", type=int, default=6, help="the first is not counted")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--f32", action="store_true", help="products in f32 instead")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    quiet_transformers()
    notes = [json.loads(line) for line in (a.data / "notes.jsonl").read_text().splitlines()]
    notes = [note for note in notes if note.get("image")]
    model, tokenizer = build(a)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=3e-4, weight_decay=1e-2)
    draw = random.Random(0)
    steps = [step(a, model, optimiser, notes, tokenizer, draw) for _ in range(a.steps)][1:]
    seconds = [found for found, _ in steps]
    median = statistics.median(found["step"] for found in seconds)
    print(json.dumps({
        "what": "recipe", "framework": "pytorch", "dtype": "f32" if a.f32 else "bf16 autocast", "pairs": a.pairs,
        "positions": statistics.median(width for _, width in steps) + 3, "trained_parameters": sum(p.numel() for p in learning),
        "notes_per_second": 2 * a.pairs / median, "seconds_per_step": median,
        "spread": (max(found["step"] for found in seconds) - min(found["step"] for found in seconds)) / median,
        "seconds_by_phase": {name: statistics.median(found[name] for found in seconds) for name in seconds[0] if name != "step"},
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "torch": torch.__version__}, indent=1))


if __name__ == "__main__":
    main()
