#!/usr/bin/env python3
"""Exact nearest neighbours: `mlrm similar` beside faiss's flat index, the same embeddings, the same answers.

    python benches/nearest.py target/release/mlrm [--notes 1000000] [--dim 64] [--queries 115] [-k 10]

Times are of the processor (user + system). Of mlrm the whole command is timed, and the same with one query, which is
reading the file and little else; of faiss the search alone. Needs numpy and faiss-cpu."""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import time

import faiss
import numpy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("mlrm", type=pathlib.Path)
parser.add_argument("--notes", type=int, default=1_000_000)
parser.add_argument("--dim", type=int, default=64)
parser.add_argument("--queries", type=int, default=115)
parser.add_argument("-k", type=int, default=10)
parser.add_argument("--turns", type=int, default=3)
args = parser.parse_args()

random = numpy.random.default_rng(1)
vectors = random.standard_normal((args.notes, args.dim), dtype=numpy.float32)
vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
rows = random.choice(args.notes, args.queries, replace=False)


def processor(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def similar(folder, rows):
    words = [args.mlrm, "similar", folder / "notes.npy", "-k", str(args.k), "--json"]
    words += [word for row in rows for word in ("--id", str(row))]
    before, start = processor(resource.RUSAGE_CHILDREN), time.monotonic()
    out = subprocess.run(words, check=True, capture_output=True).stdout
    wall = time.monotonic() - start
    found = [[int(note["id"]) for note in answer["neighbours"]] for answer in json.loads(out)]
    return found, processor(resource.RUSAGE_CHILDREN) - before, wall


def flat(index, rows):
    before, start = processor(resource.RUSAGE_SELF), time.monotonic()
    _, found = index.search(vectors[rows], args.k + 1)
    wall, used = time.monotonic() - start, processor(resource.RUSAGE_SELF) - before
    # The query itself is the first of its own neighbours.
    return [[int(note) for note in line if note != row][: args.k] for row, line in zip(rows, found)], used, wall


with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    numpy.save(folder / "notes.npy", vectors)
    (folder / "notes.ids.txt").write_text("".join(f"{row}\n" for row in range(args.notes)))
    index = faiss.IndexFlatIP(args.dim)
    index.add(vectors)
    print(f"{args.queries} queries in {args.notes} x {args.dim}, {args.k} nearest, {os.cpu_count()} cores")
    for _ in range(args.turns):
        found, used, wall = similar(folder, rows)
        _, reading, reading_wall = similar(folder, rows[:1])
        expected, flat_used, flat_wall = flat(index, rows)
        same = sum(a == b for a, b in zip(found, expected))
        print(
            f"mlrm {used:.2f} s (wall {wall:.2f}); with one query {reading:.2f} s (wall {reading_wall:.2f}); "
            f"faiss flat, search alone {flat_used:.2f} s (wall {flat_wall:.2f}); {same} of {len(rows)} answers the same"
        )
