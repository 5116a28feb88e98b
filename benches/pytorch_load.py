#!/usr/bin/env python
"""Make a large checkpoint, and time how `transformers` loads it: the baseline of `mlrm inspect --load`.

    python benches/pytorch_load.py make /tmp/qwen
    python benches/pytorch_load.py load /tmp/qwen
    mlrm inspect /tmp/qwen --load

`make` writes a checkpoint of the shape of Qwen2.5-0.5B (24 layers, width 896, 151,936 words, tied embeddings) in
bfloat16 with random weights (seed 0): 988 MB in two shards with an index. No tokenizer.

`load` prints one JSON object of `AutoModel.from_pretrained(DIR, dtype=bfloat16)` (safetensors, CPU):
    seconds              until it returns; imports and the reading of the config are done before
    seconds_with_values  until every parameter has been copied into memory of its own as well: from_pretrained
                         leaves the values in the memory-mapped file until they are first used
    cpu_seconds, cpu_seconds_with_values  the same in processor time
    peak_bytes           largest resident memory of the process until it returns
    peak_bytes_with_values  the same, until every parameter has been copied
    peak_bytes_before    the same before loading: Python, torch and transformers themselves
Run each once before measuring, so that the file is in the system's cache for both. Needs torch, transformers 5 and
safetensors (versions: tests/golden/README.md).
"""
from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch


def make(folder: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, max_position_embeddings=32_768, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="600MB")
    shards = sorted(folder.glob("model-*.safetensors"))
    print(json.dumps({"parameters": model.num_parameters(),
                      "shards": {shard.name: shard.stat().st_size for shard in shards}}))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load(folder: Path) -> None:
    import transformers

    transformers.AutoConfig.from_pretrained(folder)
    transformers.AutoModel  # the import is lazy
    # The class's module, too, is imported at first use.
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

    before = peak_bytes()
    start, start_cpu = time.perf_counter(), time.process_time()
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    loaded = peak_bytes()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    print(json.dumps({
        "seconds": round(seconds, 3), "seconds_with_values": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "cpu_seconds_with_values": round(time.process_time() - start_cpu, 3),
        "peak_bytes": loaded, "peak_bytes_with_values": peak_bytes(), "peak_bytes_before": before,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__, "transformers": transformers.__version__}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "load"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    {"make": make, "load": load}[arguments.what](arguments.folder)


if __name__ == "__main__":
    main()
