#!/usr/bin/env python
"""Turn a case of make_cases.py into one whose weights are one published kind of whole model.

    python make_systems.py KIND CASE

The folder `system` takes the place of `llm`, `vision` (of which NoteLLM-2 keeps the config) and `head.safetensors`:

| KIND | `system` | made by |
| --- | --- | --- |
| blip-2 | Hugging Face's BLIP-2 over OPT | `transformers.Blip2ForConditionalGeneration.save_pretrained` |
| qwen-vl | Qwen-VL | the names and config keys of the published checkpoint (`transformers` has no class) |
| notellm2 | what the released NoteLLM-2 code saves of `MLlama` and `Qwen_selfvl` | the attributes of those classes: `model` or `transformer`, `vision_tower.vision_tower` (a CLIPVisionModel), `query_tokens`, `qformer`, `mm_projector`, `mm_projector_latefusion`, `gate`, `linear`, `temperature`; its config.json is that of the language model |

For BLIP-2 the expected pooled states are computed a second time by the saved folder, loaded by `transformers`, on
the same pictures and prompts. Of what make_cases.py expects a selection stays (KEPT), to keep the folders small.
"""
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from reference import load_case, quiet_transformers

KEPT = ("vision.hidden.", "vision.features", "llm.hidden.", "qformer.output", "visual_tokens", "valid_mask", "llm.final", "position.", "final.pooled",
        "final.fused", "final.embedding", "visual.embedding", "loss", "grad.query_tokens", "grad.resampler.query",
        "grad.mm_projector", "grad.temperature", "grad.linear", "grad.gate", "grad.llm.")


def blip2(case: Path, out: Path, flags: dict):
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    text = json.loads((case / "llm" / "config.json").read_text())
    image = text["vocab_size"] - 1  # of the published processor; not the case's own image token
    config = Blip2Config(
        vision_config=json.loads((case / "vision" / "config.json").read_text()),
        qformer_config={k: v for k, v in flags["qformer_config"].items() if k != "pad_token_id"},
        text_config=text, num_query_tokens=flags["config"]["num_query_tokens"], image_token_index=image)
    config._attn_implementation = "eager"
    model = Blip2ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    head = load_file(case / "head.safetensors")
    model.vision_model.load_state_dict(load_file(case / "vision" / "model.safetensors"))
    model.language_model.load_state_dict(load_file(case / "llm" / "model.safetensors"))
    model.qformer.load_state_dict({k.removeprefix("qformer."): v for k, v in head.items() if k.startswith("qformer.")})
    model.language_projection.load_state_dict(
        {k.removeprefix("mm_projector."): v for k, v in head.items() if k.startswith("mm_projector.")})
    model.query_tokens.data.copy_(head["query_tokens"])
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    compare_blip2(case, Blip2ForConditionalGeneration.from_pretrained(out, attn_implementation="eager").eval(), image)


def compare_blip2(case: Path, model, image: int):
    """The pooled states by `transformers`' own forward pass."""
    reference, inputs, _ = load_case(case)
    expected = load_file(case / "expected.safetensors")["final.pooled"]
    cfg = reference.cfg
    for row, (ids, pixels) in enumerate(zip(inputs["input_ids"], inputs["pixel_values"])):
        ids = ids[ids != cfg.pad_token_id]
        at = (ids == cfg.image_token_id).nonzero().item()
        ids = torch.cat([ids[:at], torch.full((cfg.num_query_tokens,), image), ids[at + 1:]])
        with torch.no_grad():
            out = model(pixel_values=pixels[None], input_ids=ids[None], attention_mask=torch.ones_like(ids)[None],
                        output_hidden_states=True)
        found = out.language_model_outputs.hidden_states[-1][0, -1]
        torch.testing.assert_close(found, expected[row], rtol=1e-5, atol=1e-5)


def qwen_vl(case: Path, out: Path, flags: dict):
    config = json.loads((case / "llm" / "config.json").read_text())
    visual = json.loads((case / "vision" / "config.json").read_text())
    visual.pop("model_type")
    visual.update(output_dim=config["hidden_size"], n_queries=flags["config"]["num_query_tokens"], image_start_id=5)
    config.update(visual=visual, architectures=["QWenLMHeadModel"])
    tensors = load_file(case / "llm" / "model.safetensors") | load_file(case / "vision" / "model.safetensors")
    for name, value in load_file(case / "head.safetensors").items():
        part = name.removeprefix("resampler.")
        if part != name:
            own = part if part == "proj" or part.startswith("ln_post.") else f"attn_pool.{part}"
            tensors[f"transformer.visual.{own}"] = value
    write(out, config, tensors)


def notellm2(case: Path, out: Path, flags: dict):
    config = json.loads((case / "llm" / "config.json").read_text())
    config["architectures"] = ["Qwen_selfvl" if config["model_type"] == "qwen" else "MLlama"]
    tensors = {k: v for k, v in load_file(case / "llm" / "model.safetensors").items() if not k.startswith("lm_head")}
    for name, value in load_file(case / "vision" / "model.safetensors").items():
        tensors[f"vision_tower.vision_tower.{name}"] = value
    tensors |= load_file(case / "head.safetensors")
    write(out, config, tensors)


def write(out: Path, config: dict, tensors: dict):
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})


def main():
    kind, case = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    quiet_transformers()
    flags = json.loads((case / "case.json").read_text())
    {"blip-2": blip2, "qwen-vl": qwen_vl, "notellm2": notellm2}[kind](case, case / "system", flags)
    expected = load_file(case / "expected.safetensors")
    kept = {k: v for k, v in expected.items() if k.startswith(KEPT)}
    save_file(kept, case / "expected.safetensors")
    flags["rounding"] = {k: v for k, v in flags["rounding"].items() if k in kept}
    (case / "case.json").write_text(json.dumps(flags, indent=1) + "\n")
    shutil.rmtree(case / "llm")
    (case / "head.safetensors").unlink()
    if kind == "notellm2":
        (case / "vision" / "model.safetensors").unlink()
    else:
        shutil.rmtree(case / "vision")
    for file in case.rglob("*.safetensors"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()
