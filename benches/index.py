#!/usr/bin/env python
"""`mlrm index` beside faiss's HNSW on the same unit vectors: recall, searches a second, memory, build time.

    python benches/index.py target/release/mlrm [--notes 1000000] [--dim 64] [--clusters 1000] [--rounds 1]

`mlrm` must have the cargo feature `index`. The vectors are a mixture of clusters: a centre drawn from a normal distribution plus
0.7 of another, set to length 1. Both graphs have M = 16 and efConstruction = 128; searches are for the 10 nearest of `--queries`
notes, the note itself left out, at ef = 64. All run by turns on all threads, each build in a process of its own. Times are of
the wall and of the processor (user and system, all threads of the process). Peak memory is that of the process: faiss's with
vectors and Python up to the end of the build, `mlrm index` with reading and the exact answers, `mlrm similar` that of one
question to the finished index, opening it included.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

K, M, ADD, SEARCH = 10, 16, 128, 64


def unit_vectors(notes: int, dim: int, clusters: int) -> np.ndarray:
    draw = np.random.default_rng(7)
    centres = draw.standard_normal((clusters, dim), dtype=np.float32)
    values = centres[draw.integers(0, clusters, notes)] + 0.7 * draw.standard_normal((notes, dim), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def faiss_side(file: str, queries: int) -> None:
    """In a process of its own: a line of JSON."""
    import faiss

    values = np.load(file)
    rows = (np.arange(queries) * len(values)) // queries
    begin, used = time.perf_counter(), time.process_time()
    index = faiss.IndexHNSWFlat(values.shape[1], M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = ADD
    index.add(values)
    build = time.perf_counter() - begin, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exact = faiss.IndexFlatIP(values.shape[1])
    exact.add(values)
    _, truth = exact.search(values[rows], K + 1)
    index.hnsw.efSearch = SEARCH
    begin, used = time.perf_counter(), time.process_time()
    _, found = index.search(values[rows], K + 1)
    search = time.perf_counter() - begin, time.process_time() - used

    def others(row, near):
        return [n for n in near if n != row][:K]

    hits = sum(len(set(others(row, f)) & set(others(row, t))) for row, f, t in zip(rows, found, truth))
    print(json.dumps({"build": build, "search": search, "recall": hits / (K * queries), "peak_kib": peak}))


def measured(command: list) -> tuple[float, resource.struct_rusage]:
    """Runs it; seconds of the wall and what it used."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status != 0:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - begin, usage


def faiss_line(file: Path, queries: int) -> None:
    out = subprocess.run([sys.executable, __file__, "-", "--faiss", file, "--queries", str(queries)],
                         check=True, capture_output=True, text=True).stdout
    f = json.loads(out)
    print(f"faiss HNSW f32: recall@{K} {f['recall']:.4f}, {queries / f['search'][0]:,.0f} searches/s "
          f"({f['search'][1] / queries * 1e6:.0f} us of the processor each), built in {f['build'][0]:.0f} s "
          f"({f['build'][1]:.0f} s of the processor), peak {f['peak_kib'] / 2**20:.2f} GiB", flush=True)


def mlrm_line(mlrm: str, file: Path, dtype: str, queries: int) -> None:
    index = file.with_name(f"notes-{dtype}.usearch")
    _, usage = measured([mlrm, "index", file, "--out", index, "--dtype", dtype, "--connectivity", M, "--expansion-add", ADD,
                         "--expansion-search", SEARCH, "--queries", queries, "-k", K])
    seconds, asked = measured([mlrm, "similar", "--index", index, "--id", "7"])
    report = json.loads(Path(f"{index}.json").read_text())
    recall = report["recall"]
    print(f"mlrm index {dtype}: recall@{K} {recall['recall']:.4f}, {recall['queries_per_second']:,.0f} searches/s, built "
          f"in {report['build_seconds']:.0f} s (command: {usage.ru_utime + usage.ru_stime:.0f} s of the processor), file "
          f"{report['bytes'] / 2**20:.0f} MiB, peak {usage.ru_maxrss / 2**20:.2f} GiB; mlrm similar {seconds:.2f} s, "
          f"{asked.ru_maxrss / 2**10:.0f} MiB", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mlrm")
    parser.add_argument("--notes", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dtypes", default="f32,f16,int8")
    parser.add_argument("--faiss", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.faiss:
        faiss_side(a.faiss, a.queries)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "notes.npy"
        np.save(file, unit_vectors(a.notes, a.dim, a.clusters))
        file.with_suffix(".ids.txt").write_text("".join(f"{note}\n" for note in range(a.notes)))
        print(f"{a.notes:,} x {a.dim} in {a.clusters:,} clusters, {a.queries} queries, {os.cpu_count()} cores", flush=True)
        for _ in range(a.rounds):
            faiss_line(file, a.queries)
            for dtype in a.dtypes.split(","):
                mlrm_line(a.mlrm, file, dtype, a.queries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
