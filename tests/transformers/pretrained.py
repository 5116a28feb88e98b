#!/usr/bin/env python
"""What `transformers` makes of texts and pictures with pre-trained weights, for a test to compare with.

    python pretrained.py LLM VISION OUT

LLM is the Hugging Face folder of a language model with its `tokenizer.json`, VISION that of a vision encoder with its
`preprocessor_config.json`, or what they are called on the Hub, from which they are fetched then. 32 texts and 32 pictures are written here, by this script and from no data set. OUT gets

folders.json              the two folders
texts.json                the texts
picture_NN.png            the pictures
llm.safetensors           input_ids [32, seq] int64, right padded; lengths [32]; hidden_states [states, 32, seq, width];
                          embedding [32, width], the last state at the last word; embedding_bf16, the same in bf16
vision.safetensors        pixel_values [32, 3, side, side]; hidden_states [states, 32, positions, width];
                          embedding [32, width], the class token after the last norm; embedding_bf16

float32 unless it says bf16, eager attention. Needs torch, transformers 5, safetensors, numpy and pillow.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

WORDS = ("river", "stone", "window", "bread", "winter", "engine", "letter", "garden", "violet", "harbour", "number",
         "mirror", "copper", "island", "lantern", "paper", "salt", "thunder", "velvet", "walnut")
ODD = (
    "a", "Numbers: 3.14159, 1,000,000 and 42 %.", "Grüße aus Köln – naïve café, œuvre, Łódź",
    "東京の夜、雨が降っていた。", "Привет, мир! Как дела?", "مرحبا بالعالم", "🙂👩‍👩‍👧 emoji and 🇩🇪 flags",
    "def f(x):\n    return [y ** 2 for y in x if y > 0]\n", "  leading and trailing spaces   ",
    "tabs\tand\nnew\r\nlines", "CamelCaseAndsnake_case, kebab-case; UPPER lower", "https://example.org/a?b=c&d=%20#e",
)


def texts() -> list[str]:
    """Twelve odd ones, then sentences of 5 to 100 words."""
    draw = np.random.default_rng(3)
    sentences = []
    for index in range(32 - len(ODD)):
        words = [WORDS[i] for i in draw.integers(0, len(WORDS), 5 + 5 * index)]
        sentences.append(" ".join(words).capitalize() + ".")
    return [*ODD, *sentences]


def pictures() -> list[Image.Image]:
    """Shapes, gradients and noise, in 32 sizes from 37 to 620 pixels."""
    draw = np.random.default_rng(5)
    drawn = []
    for index in range(32):
        width, height = (int(n) for n in draw.integers(37, 620, 2))
        ramp = np.linspace(0, 255, width)[None, :, None] * draw.random(3) + np.zeros((height, 1, 1))
        noise = draw.normal(0, 4 + 2 * index, (height, width, 3))
        picture = Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        for _ in range(2 + index % 7):
            x, y, w, h = (int(n) for n in draw.integers(0, (width, height, width, height)))
            shape = pen.ellipse if draw.random() < 0.5 else pen.rectangle
            shape((x, y, x + w, y + h), fill=tuple(int(n) for n in draw.integers(0, 256, 3)))
        drawn.append(picture)
    return drawn


def folder(name: str) -> Path:
    """A folder, that of a name on the Hub if need be."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))


def load(folder: Path, dtype):
    return AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


@torch.no_grad()
def language_model(folder: Path) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts()]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.tensor([row + [0] * (int(lengths.max()) - len(row)) for row in ids])
    mask = torch.arange(padded.shape[1])[None] < lengths[:, None]

    def states(dtype):
        return load(folder, dtype)(input_ids=padded, attention_mask=mask.long(), output_hidden_states=True).hidden_states

    def last(state):
        return state[torch.arange(len(ids)), lengths - 1].float()

    exact = states(torch.float32)
    return {"input_ids": padded, "lengths": lengths, "hidden_states": torch.stack(exact), "embedding": last(exact[-1]),
            "embedding_bf16": last(states(torch.bfloat16)[-1])}


@torch.no_grad()
def vision_encoder(folder: Path) -> dict:
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = processor(pictures(), return_tensors="pt")["pixel_values"]
    exact = load(folder, torch.float32)(pixels, output_hidden_states=True)
    short = load(folder, torch.bfloat16)(pixels.bfloat16())
    return {"pixel_values": pixels, "hidden_states": torch.stack(exact.hidden_states),
            "embedding": exact.last_hidden_state[:, 0].contiguous(),
            "embedding_bf16": short.last_hidden_state[:, 0].float().contiguous()}


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    llm, vision, out = folder(sys.argv[1]), folder(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    (out / "folders.json").write_text(json.dumps([str(llm), str(vision)]))
    (out / "texts.json").write_text(json.dumps(texts()))
    for index, picture in enumerate(pictures()):
        picture.save(out / f"picture_{index:02}.png")
    save_file(language_model(llm), out / "llm.safetensors")
    save_file(vision_encoder(vision), out / "vision.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
