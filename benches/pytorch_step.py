#!/usr/bin/env python
"""Time the training step of the PyTorch reference model, the baseline of `mlrm bench train`.

    python benches/pytorch_step.py --threads 2

The defaults are the shape of configs/bench-cpu.toml: 16 pairs, 96 text tokens and 16 visual tokens a note.
The model is tests/golden/oracle/reference.py (variant notellm2, vector gate, Q-Former) with random weights on
`transformers` modules, run eagerly (not compiled) in float32, with --autocast its products in bf16; the step is the whole one: frozen vision encoder,
forward, backward, clipping by global norm, AdamW over everything but vision. Pixels and token ids are ready
in memory: decoding and tokenising are not measured. --embed times embedding instead: vision encoder and forward pass without
gradients, as `mlrm bench embed`.

Prints one JSON object: medians over the steps after the warm-up. `seconds_by_phase`:
    vision      the frozen encoder, without autodiff
    forward     everything else up to the loss
    backward    loss.backward()
    optimiser   clipping, AdamW, zero_grad
Needs torch, transformers 5 and safetensors (versions: tests/golden/README.md).
"""
from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "golden" / "oracle"))
from reference import NoteLLM2Config, NoteLLM2Reference, quiet_transformers  # noqa: E402

SPECIAL = 3  # the last ids of the vocabulary: pad, <IMG>, <IMG_EMB>
FAMILIES = ("llama", "qwen2", "qwen3")


def build(a):
    """The reference model with random weights."""
    import transformers
    from transformers import Blip2QFormerConfig, CLIPVisionConfig, CLIPVisionModel

    config_class = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}[a.family]
    llm_config = getattr(transformers, config_class)(
        vocab_size=a.vocab, hidden_size=a.hidden, num_hidden_layers=a.layers, num_attention_heads=a.heads,
        num_key_value_heads=a.kv_heads, intermediate_size=a.inner, head_dim=a.hidden // a.heads,
        max_position_embeddings=4096, pad_token_id=a.vocab - SPECIAL)
    llm = transformers.AutoModel.from_config(llm_config, dtype=torch.float32, attn_implementation=a.attention)
    vision_config = CLIPVisionConfig(
        hidden_size=a.vision_hidden, num_hidden_layers=a.vision_layers, num_attention_heads=a.vision_heads,
        intermediate_size=4 * a.vision_hidden, image_size=a.image_size, patch_size=a.patch_size)
    vision = CLIPVisionModel._from_config(vision_config, attn_implementation=a.attention)
    qformer_config = Blip2QFormerConfig(
        vocab_size=0, pad_token_id=None, hidden_size=a.qformer_hidden, num_hidden_layers=a.qformer_layers,
        num_attention_heads=a.qformer_heads, intermediate_size=4 * a.qformer_hidden,
        encoder_hidden_size=a.vision_hidden, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = NoteLLM2Config.for_variant(
        "notellm2", num_query_tokens=a.queries, embedding_dim=a.head_dim, pad_token_id=a.vocab - SPECIAL,
        image_token_id=a.vocab - SPECIAL + 1, image_emb_token_id=a.vocab - SPECIAL + 2)
    model = NoteLLM2Reference(config, llm, vision, qformer_config).train()
    if a.lora:
        from peft import LoraConfig, inject_adapter_in_model

        model.llm.requires_grad_(False)
        adapters = LoraConfig(r=a.lora, lora_alpha=2 * a.lora, target_modules="all-linear", bias="none")
        inject_adapter_in_model(adapters, model.llm)
    return model


def make_batch(a):
    """Ids [2 * pairs, text tokens + 1] without padding, and pixels."""
    notes = 2 * a.pairs
    ids = torch.randint(0, a.vocab - SPECIAL, (notes, a.text_tokens + 1))
    ids[:, 4] = a.vocab - SPECIAL + 1
    ids[:, 12] = a.vocab - SPECIAL + 2
    return ids, torch.randn(notes, 3, a.image_size, a.image_size)


def wait(device):
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def time_step(model, optimiser, batch, a):
    """Seconds by phase of one step."""
    seconds = {"vision": 0.0}
    device = torch.device(a.device).type

    def clock():
        wait(a.device)
        return time.perf_counter()

    encode = NoteLLM2Reference.encode_vision

    def timed_encode(pixels):
        start = clock()
        out = encode(model, pixels)
        seconds["vision"] = clock() - start
        return out

    model.encode_vision = timed_encode
    marks = [clock()]
    with torch.autocast(device, torch.bfloat16, enabled=a.autocast):
        loss = model(*batch).loss
    marks.append(clock())
    loss.backward()
    marks.append(clock())
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimiser.step()
    optimiser.zero_grad()
    marks.append(clock())
    seconds["forward"] = marks[1] - marks[0] - seconds["vision"]
    seconds["backward"] = marks[2] - marks[1]
    seconds["optimiser"] = marks[3] - marks[2]
    seconds["step"] = marks[3] - marks[0]
    return seconds


def time_embedding(model, batch, a):
    """Seconds of the embeddings of one batch."""
    start = time.perf_counter()
    with torch.inference_mode(), torch.autocast(torch.device(a.device).type, torch.bfloat16, enabled=a.autocast):
        model(*batch, compute_loss=False).embedding["final"].float().cpu()
    return {"step": time.perf_counter() - start}


def processor_seconds():
    """User and system time of this process, all threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_stime


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=5, help="measured steps")
    p.add_argument("--warmup", type=int, default=1, help="steps before them")
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    p.add_argument("--lora", type=int, default=0, metavar="RANK",
                   help="train adapters of this rank beside every linear map of the LLM (peft), not the LLM itself")
    p.add_argument("--embed", action="store_true", help="embed batches of --pairs * 2 notes instead of training")
    p.add_argument("--autocast", action="store_true", help="products in bf16 (torch.autocast)")
    p.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="implementation in LLM and vision")
    p.add_argument("--family", choices=FAMILIES, default="llama")
    p.add_argument("--pairs", type=int, default=16)
    p.add_argument("--text-tokens", type=int, default=96, help="ids of a note beside <IMG>")
    sizes = dict(hidden=512, layers=8, heads=8, kv_heads=2, inner=1408, vocab=8000, vision_hidden=384,
                 vision_layers=6, vision_heads=6, image_size=224, patch_size=32, qformer_hidden=384,
                 qformer_layers=2, qformer_heads=6, queries=16, head_dim=64)
    for name, value in sizes.items():
        p.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    return p.parse_args()


def main():
    import transformers

    a = arguments()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    quiet_transformers()
    model, batch = build(a).to(a.device), [part.to(a.device) for part in make_batch(a)]
    if a.embed:
        model.eval()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-4, weight_decay=1e-3)
    once = (lambda: time_embedding(model, batch, a)) if a.embed else (lambda: time_step(model, optimiser, batch, a))
    for _ in range(a.warmup):
        once()
    before = processor_seconds()
    runs = [once() for _ in range(a.steps)]
    processor, kernel = [(after - b) / a.steps for after, b in zip(processor_seconds(), before)]
    steps = [r["step"] for r in runs]
    median = statistics.median(steps)
    notes = 2 * a.pairs
    positions = a.text_tokens + a.queries
    print(json.dumps({
        "what": "embed" if a.embed else "train", "framework": "pytorch", "dtype": "bf16 autocast" if a.autocast else "f32", "attention": a.attention, "threads": a.threads,
        "device": a.device, "lora": a.lora,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if a.device.startswith("cuda") else None,
        "shape": {k: v for k, v in vars(a).items() if k not in ("threads", "steps", "warmup", "attention", "autocast", "device", "lora", "embed")},
        "positions": positions, "trained_parameters": sum(p.numel() for p in learning),
        "notes_per_second": notes / median, "best_notes_per_second": notes / min(steps),
        "tokens_per_second": notes * positions / median, "seconds_per_step": median,
        "seconds_by_phase": {k: statistics.median(r[k] for r in runs) for k in runs[0] if k != "step"},
        "processor_seconds_per_step": processor, "kernel_seconds_per_step": kernel,
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "runs": len(runs), "spread": (max(steps) - min(steps)) / median,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "python": sys.version.split()[0]},
    }, indent=1))


if __name__ == "__main__":
    main()
