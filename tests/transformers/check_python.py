#!/usr/bin/env python
"""Check that folders written by `mlrm export --python` give the embeddings that `mlrm embed` gives.

    python check_python.py NOTES [FOLDER EMBEDDINGS]...

NOTES is the notes file (JSON Lines, pictures beside it) that was embedded, EMBEDDINGS a `.npy` of `mlrm embed`, with
`.visual.npy` beside it for models with mICL. Each folder is loaded by `AutoModel` and by `SentenceTransformer`, its notes
are embedded in small batches and in one, and what `SentenceTransformer.save` writes is loaded again. Prints a line with
the largest difference of each; exit code 1 where one is over 1e-5. Needs torch, transformers 5 and sentence-transformers.
"""
from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

MOST = 1e-5


def read_notes(path: Path) -> list[dict]:
    notes = [json.loads(line) for line in path.read_text().split("\n") if line]
    for note in notes:
        if note.get("image"):
            note["image"] = str(path.parent / note["image"])
    return notes


def check(folder: str, embeddings: Path, notes: list[dict]) -> float:
    expected = np.load(embeddings)
    largest = 0.0

    def compare(found, wanted):
        nonlocal largest
        found = np.asarray(found)
        assert found.shape == wanted.shape, (found.shape, wanted.shape)
        largest = max(largest, float(np.abs(found - wanted).max()))

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    compare(model.embed(notes, batch_size=7), expected)
    visual = embeddings.with_suffix(".visual.npy")
    if visual.is_file():
        compare(model.embed(notes, visual=True), np.load(visual))
    sentence = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
    compare(sentence.encode(notes, batch_size=16), expected)
    assert sentence.get_embedding_dimension() == expected.shape[1]
    with tempfile.TemporaryDirectory() as again:
        sentence.save(again)
        compare(SentenceTransformer(again, trust_remote_code=True, device="cpu").encode(notes), expected)
    return largest


def main() -> int:
    if len(sys.argv) < 4 or len(sys.argv) % 2:
        print(__doc__, file=sys.stderr)
        return 2
    notes = read_notes(Path(sys.argv[1]))
    failed = False
    for folder, embeddings in zip(sys.argv[2::2], sys.argv[3::2]):
        largest = check(folder, Path(embeddings), notes)
        failed |= not largest <= MOST
        print(f"{'same' if largest <= MOST else 'DIFFERENT'} {folder}: largest difference {largest:.2e}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
