"""The reference with the weights of a model folder of mlrm, and what `mlrm data batches` wrote for it."""
from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import torch

from reference import VARIANTS, NoteLLM2Config, NoteLLM2Reference
from vision import load_vision


def open_model(folder: Path, objective: dict):
    """(reference in eval mode, with PEFT's adapters where the folder has some; sizes of its Q-Former or None) of a
    model folder. `objective` weighs the losses, as a run's config does."""
    from safetensors.torch import load_file
    from transformers import AutoModel, Blip2QFormerConfig

    said = tomllib.loads((folder / "mlrm.toml").read_text())
    if said["variant"] not in VARIANTS:
        sys.exit(f"the reference has no variant {said['variant']!r}")
    connector, fusion, tokens = said.get("connector"), said.get("fusion", {}), said["tokens"]
    cfg = NoteLLM2Config.for_variant(
        said["variant"], gate_kind=fusion.get("kind", "vector"), gate_hidden_size=fusion.get("hidden_size", 16),
        num_query_tokens=(connector or {}).get("num_query_tokens", 0), mm_projector_type=said["projector"],
        vision_select_layer=said["select_layer"], vision_select_feature=said["select_feature"],
        vision_post_layernorm=said["post_layernorm"], image_insert=said["layout"],
        embedding_dim=said["head_dim"] or -1, text_weight=objective["multimodal_weight"],
        vision_weight=objective["visual_weight"], pad_token_id=tokens["pad"],
        image_token_id=tokens.get("image", -1), image_emb_token_id=tokens.get("image_emb", -1))
    sizes = qformer = None
    if connector is not None:
        if connector["kind"] != "qformer":
            sys.exit(f"of connectors only Q-Formers are read here, not {connector['kind']!r}")
        sizes = {k: v for k, v in connector.items() if k not in ("kind", "num_query_tokens")}
        qformer = Blip2QFormerConfig(vocab_size=0, pad_token_id=None, **sizes)
    llm = AutoModel.from_pretrained(folder / "llm", dtype=torch.float32, attn_implementation="eager")
    vision = load_vision(folder / "vision") if (folder / "vision").is_dir() else None
    model = NoteLLM2Reference(cfg, llm, vision, qformer)
    model.load_head_state_dict(load_file(folder / "head.safetensors"))
    if (folder / "adapter").is_dir():
        add_adapters(model, folder / "adapter")
    return model.eval(), sizes


def adapter_parameters(model, folder: Path) -> dict:
    """Name in `adapter_model.safetensors` -> parameter, of a model with adapters of PEFT."""
    from safetensors.torch import load_file

    def parameter(name):
        own = name.removeprefix("base_model.model.").removeprefix("model.")
        for matrix in ("lora_A", "lora_B"):
            own = own.replace(f".{matrix}.weight", f".{matrix}.default.weight")
        return model.llm.get_parameter(own)

    return {name: parameter(name) for name in load_file(folder / "adapter_model.safetensors")}


def add_adapters(model, folder: Path):
    """Puts the adapters of `folder` into the language model, which is frozen but for them."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    config = LoraConfig.from_pretrained(folder)
    config.inference_mode, config.task_type = False, None  # the language model has no head here
    get_peft_model(model.llm, config)
    stored, parameters = load_file(folder / "adapter_model.safetensors"), adapter_parameters(model, folder)
    learn = {name for name, p in model.llm.named_parameters() if p.requires_grad}
    if len(learn) != len(parameters) or not all("lora_" in name for name in learn):
        sys.exit(f"{folder}: {len(parameters)} tensors for {len(learn)} of PEFT's")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(stored[name])


def fed(batches: dict, step: int):
    """(inputs of the reference, which note stands where [2B]) of a step of `mlrm data batches`."""
    at = lambda name: batches.get(f"step.{step}.{name}")
    if at("by_text") is not None:
        sys.exit(f"step {step} has notes without a picture, which the reference does not read")
    inputs = {"input_ids": at("input_ids")}
    if at("pictures") is not None:
        inputs["pixel_values"] = batches["pixel_values"][at("pictures")].contiguous()
    return inputs, at("rows")
