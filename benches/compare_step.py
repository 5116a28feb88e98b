#!/usr/bin/env python3
"""Training steps and embedding of mlrm beside PyTorch at its best, by turns, as a Markdown table.

    python benches/compare_step.py target/release/mlrm [--shape bench-cpu] [--what train] [--turns 3]

Shapes, with random weights on both sides:
    bench-cpu  configs/bench-cpu.toml: 32 million parameters, all of them learn, 32 notes of 112 positions
    smollm2    a language model of the shape of SmolLM2-135M with adapters of rank 16 beside all of its maps, 32 notes of 140
               positions; vision encoder, connector and head as in bench-cpu

Columns: mlrm in f32 and with products in bf16 (`backend.matmul_precision`), PyTorch in f32 and with bf16 autocast, and, with
--preload LIBRARY, PyTorch in f32 with MKL's AVX-512 kernels on processors where it takes others (a library whose
`mkl_serv_intel_cpu_true` returns 1). Every turn runs each column once, as a process of its own; the table has the median
over the turns of notes a second, of processor time a step (user and system, all threads) and of the kernel's share of it, and
the largest resident memory. On a machine with other work compare processor times: PyTorch's threads spin while they wait.
Needs what benches/pytorch_step.py needs, and peft for smollm2.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {
    "bench-cpu": ([], []),
    "smollm2": (
        ["model.llm.vocab_size=49152", "model.llm.hidden_size=576", "model.llm.num_hidden_layers=30",
         "model.llm.num_attention_heads=9", "model.llm.num_key_value_heads=3", "model.llm.intermediate_size=1536",
         "model.llm.tune=lora", "model.llm.lora.rank=16", "model.llm.lora.alpha=32", "prompt.max_tokens=140"],
        ["--vocab=49152", "--hidden=576", "--layers=30", "--heads=9", "--kv-heads=3", "--inner=1536", "--lora=16",
         "--text-tokens=124"],
    ),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mlrm", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="bench-cpu")
    parser.add_argument("--what", choices=("train", "embed"), default="train")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="measured steps of a turn, after one that is not")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--preload", type=Path, help="library that switches on MKL's AVX-512 kernels")
    parser.add_argument("--only", default="", help="columns whose names hold this")
    return parser.parse_args()


def columns(a):
    """Name of a column → command, environment."""
    settings, sizes = SHAPES[a.shape]
    mlrm = [a.mlrm, "bench", a.what, ROOT / "configs" / "bench-cpu.toml", "--json", f"--steps={a.steps}"]
    for setting in [*settings, "eval.batch_notes=32"]:
        mlrm += ["--set", setting]
    torch = [sys.executable, ROOT / "benches" / "pytorch_step.py", f"--steps={a.steps}", f"--threads={a.threads}", *sizes]
    torch += ["--embed"] if a.what == "embed" else []
    own = dict(os.environ, RAYON_NUM_THREADS=str(a.threads))
    found = {
        "mlrm, f32": ([*mlrm, "--set", "backend.matmul_precision=f32"], own),
        "mlrm, bf16 products": ([*mlrm, "--set", "backend.matmul_precision=bf16"], own),
        "PyTorch, f32": (torch, os.environ),
        "PyTorch, bf16 autocast": ([*torch, "--autocast"], os.environ),
    }
    if a.preload:
        found["PyTorch, f32, AVX-512"] = (torch, dict(os.environ, LD_PRELOAD=str(a.preload.resolve())))
    return {name: column for name, column in found.items() if a.only in name}


def main():
    a = arguments()
    table = columns(a)
    runs = {name: [] for name in table}
    for turn in range(a.turns):
        for name, (command, environment) in table.items():
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, cwd=ROOT)
            run = json.loads(done.stdout)
            runs[name].append(run)
            print(f"turn {turn + 1}: {name}: {run['notes_per_second']:.2f} notes/s, "
                  f"{run['processor_seconds_per_step']:.2f} s of processor time a step", file=sys.stderr)
    print("| | notes/s | spread | processor time a step | of it in the kernel | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, of in runs.items():
        notes = [run["notes_per_second"] for run in of]
        processor, kernel = [statistics.median(run[f"{what}_seconds_per_step"] for run in of)
                             for what in ("processor", "kernel")]
        peak = max(run["peak_host_bytes"] for run in of) / 2**30
        print(f"| {name} | {statistics.median(notes):.2f} | {min(notes):.2f} to {max(notes):.2f} | {processor:.2f} s | "
              f"{kernel / processor:.1%} | {peak:.2f} GiB |")


if __name__ == "__main__":
    main()
