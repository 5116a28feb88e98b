#!/usr/bin/env python3
"""Time and memory of a training step for each way to tune the language model, by turns.

    python benches/tune_step.py target/release/mlrm configs/bench-cpu.toml --rounds 3

`mlrm bench train` with `model.llm.tune` full, lora (rank 16 beside every linear map, and beside q_proj and v_proj),
and frozen, and with the frozen matrices quantised; one process each, one after the other, as often as there are
rounds. With --example the example `lora_step` of mlrm-model runs too, in which adapters are computed beside their
weights and merged into them, as Burn's own LoRA does it.

Prints Markdown tables of medians over the rounds (each a median of its steps), with their spread (largest - smallest, over the
median), and of the processes' largest resident memory. Needs Python's standard library only.
"""

import argparse
import json
import re
import statistics
import subprocess

LORA = ("model.llm.tune=lora", "model.llm.lora.rank=16", "model.llm.lora.alpha=32")
QV = 'model.llm.lora.target_modules=["q_proj","v_proj"]'
KINDS = {
    "full": (),
    "lora, all maps": LORA,
    "lora, all maps, q8": (*LORA, "model.llm.quantisation=q8"),
    "lora, all maps, q4": (*LORA, "model.llm.quantisation=q4"),
    "lora, q and v": (*LORA, QV),
    "frozen": ("model.llm.tune=frozen",),
    "frozen, q8": ("model.llm.tune=frozen", "model.llm.quantisation=q8"),
    "frozen, q4": ("model.llm.tune=frozen", "model.llm.quantisation=q4"),
}
EXAMPLE = {"frozen": "no adapter", "beside": "beside the weight (mlrm)", "merged": "merged into it (Burn's LoRA)"}


def bench(mlrm, config, settings, steps):
    """One process: its JSON report."""
    command = [mlrm, "bench", "train", config, "--json", "--steps", str(steps), "--warmup", "1"]
    command += [word for setting in settings for word in ("--set", setting)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def example(path, mode):
    """One process of the example: (seconds a pass, bytes)."""
    text = subprocess.run([path, mode], check=True, capture_output=True, text=True).stdout
    seconds, kibibytes = re.search(r"([\d.]+) s a pass.*?(\d+) kB", text, re.DOTALL).groups()
    return float(seconds), int(kibibytes) * 1024


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mlrm")
    p.add_argument("config", nargs="?", default="configs/bench-cpu.toml")
    p.add_argument("--steps", type=int, default=3, help="measured steps of a process")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    p.add_argument("--example", metavar="PATH", help="the built example lora_step")
    a = p.parse_args()
    runs = {name: [] for name in KINDS}
    passes = {name: [] for name in EXAMPLE} if a.example else {}
    for _ in range(a.rounds):
        for name, settings in KINDS.items():
            runs[name].append(bench(a.mlrm, a.config, (*a.set, *settings), a.steps))
        for mode in passes:
            passes[mode].append(example(a.example, mode))
    print("| `tune` | step | forward | backward | optimiser | spread | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, reports in runs.items():
        median = lambda read: statistics.median(map(read, reports))
        phase = lambda key: median(lambda r: r["seconds_by_phase"][key])
        steps = [r["seconds_per_step"] for r in reports]
        print(f"| {name} | {statistics.median(steps):.2f} s | {phase('llm_forward'):.2f} s "
              f"| {phase('backward'):.2f} s | {phase('optimiser'):.3f} s | {100 * spread(steps):.0f} % "
              f"| {median(lambda r: r['peak_host_bytes']) / 2**20:.0f} MiB |")
    if passes:
        print("\n| adapters | pass | spread | peak memory |\n| --- | ---: | ---: | ---: |")
    for mode, measured in passes.items():
        seconds, memory = zip(*measured)
        print(f"| {EXAMPLE[mode]} | {statistics.median(seconds):.2f} s | {100 * spread(seconds):.0f} % "
              f"| {statistics.median(memory) / 2**20:.0f} MiB |")


if __name__ == "__main__":
    main()
