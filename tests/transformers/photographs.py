#!/usr/bin/env python
"""How well the pictures of a drawn set are read, by learnt weights and by random ones.

    mlrm data synth SET --style photographs --image-pixels 160
    python photographs.py SET DINOV2

For the features of DINOv2 (the class token and the mean of the patches after the last norm), of the same encoder
with random weights, and for the pixels of thumbnails: how often the visual theme of a note is that of the nearest
other note by cosine, and the accuracy of a linear probe (ridge regression, five folds, the best of some penalties).
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel


def read(folder):
    notes = [json.loads(line) for line in open(folder / "notes.jsonl")]
    pictures = [Image.open(folder / note["image"]).convert("RGB") for note in notes]
    return pictures, np.array([note["visual_theme"] for note in notes])


def features(model, processor, pictures):
    rows = []
    for start in range(0, len(pictures), 32):
        inputs = processor(images=pictures[start : start + 32], return_tensors="pt")
        with torch.no_grad():
            state = model(**inputs).last_hidden_state
        rows.append(torch.cat([state[:, 0], state[:, 1:].mean(1)], dim=-1))
    return torch.cat(rows).numpy()


def nearest(x, themes):
    x = x - x.mean(0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    return np.mean(themes[cosines.argmax(1)] == themes)


def probe(x, themes):
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    folds = np.random.default_rng(0).permutation(len(x)) % 5
    one_hot = np.eye(themes.max() + 1)[themes]
    best = 0.0
    for penalty in (1e1, 1e2, 1e3, 1e4):
        right = 0
        for fold in range(5):
            learn, test = folds != fold, folds == fold
            gram = x[learn] @ x[learn].T + penalty * np.eye(learn.sum())
            scores = x[test] @ (x[learn].T @ np.linalg.solve(gram, one_hot[learn] - one_hot[learn].mean(0)))
            right += (scores.argmax(1) == themes[test]).sum()
        best = max(best, right / len(x))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("dinov2", type=Path)
    a = parser.parse_args()
    pictures, themes = read(a.set)
    learnt = AutoModel.from_pretrained(a.dinov2).eval()
    torch.manual_seed(0)
    random = AutoModel.from_config(learnt.config).eval()
    processor = AutoImageProcessor.from_pretrained(a.dinov2)
    thumbnails = [np.asarray(p.resize((8, 8), Image.Resampling.BOX), dtype=np.float32).ravel() for p in pictures]
    print(f"{len(pictures)} pictures, {themes.max() + 1} themes, {100 / (themes.max() + 1):.1f} % by chance")
    for name, x in (("DINOv2", features(learnt, processor, pictures)),
                    ("random weights", features(random, processor, pictures)),
                    ("thumbnails of 8 by 8", np.stack(thumbnails))):
        print(f"{name}: nearest note {100 * nearest(x, themes):.1f} %, linear probe {100 * probe(x, themes):.1f} %")


if __name__ == "__main__":
    main()
