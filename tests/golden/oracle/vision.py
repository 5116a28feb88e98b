"""The vision towers of the reference: opening a folder, and what the rest of the model reads.

| `model_type` | class | c, the picture's one vector |
| --- | --- | --- |
| clip_vision_model, clip | transformers.CLIPVisionModel | the class token of the selected state |
| siglip_vision_model, siglip | transformers.SiglipVisionModel | `pooler_output` |
| blip_2_vision_model | transformers.Blip2VisionModel | the class token of the selected state |
| qwen_vl_visual | qwen_vl.QwenVisual | the mean of the selected state's patches |
| dinov2, dinov2_with_registers, dinov3_vit, vit | transformers' model of that name | the class token of the selected state |
"""
from __future__ import annotations

import json
from pathlib import Path

import torch

from qwen_vl import QwenVisual


# What the names of a tower's own checkpoint begin with.
PREFIX = {"clip_vision_model": "vision_model.", "clip": "vision_model.", "siglip_vision_model": "vision_model.",
          "blip_2_vision_model": "", "qwen_vl_visual": "transformer.visual."}

# Families whose `from_pretrained` renames what is stored.
RENAMED = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")


def make_vision(a, randomise, gen, out: Path):
    """Write a small random tower of kind `a.vision` to `out`; returns its number of patches."""
    from safetensors.torch import load_file, save_file
    from transformers import (AutoConfig, AutoModel, Blip2VisionConfig, Blip2VisionModel, CLIPConfig, CLIPModel,
                              CLIPTextConfig, CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig,
                              SiglipVisionModel)

    sizes = dict(hidden_size=a.vision_hidden, intermediate_size=a.vision_inner, num_hidden_layers=a.vision_layers,
                 num_attention_heads=3, image_size=a.image_size, patch_size=4, hidden_act=a.vision_act)
    eager = dict(attn_implementation="eager")
    patches = (a.image_size // 4) ** 2
    if a.vision == "clip_vision_model":
        tower = CLIPVisionModel._from_config(CLIPVisionConfig(**sizes, projection_dim=16), **eager)
    elif a.vision == "clip":
        text = CLIPTextConfig(vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
                              num_attention_heads=2, max_position_embeddings=8)
        vision = CLIPVisionConfig(**sizes)
        tower = CLIPModel._from_config(
            CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16), **eager)
    elif a.vision == "siglip_vision_model":
        tower = SiglipVisionModel._from_config(SiglipVisionConfig(**sizes), **eager)
    elif a.vision == "blip_2_vision_model":
        tower = Blip2VisionModel._from_config(Blip2VisionConfig(**sizes), **eager)
    elif a.vision in RENAMED:
        # Positions are stored for another size than that of the pictures.
        sizes.update(image_size=a.stored_size or a.image_size)
        if a.vision.startswith("dinov2"):
            sizes.pop("intermediate_size")
            sizes.update(mlp_ratio=a.mlp_ratio, use_swiglu_ffn=a.swiglu)
        if a.vision in ("dinov2_with_registers", "dinov3_vit"):
            sizes.update(num_register_tokens=3)
        if a.vision == "dinov3_vit" and a.swiglu:
            sizes.update(use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False)
        tower = AutoModel.from_config(AutoConfig.for_model(a.vision, **sizes), **eager)
    else:
        # Fewer stored positions than patches, as in the published checkpoint.
        config = dict(width=a.vision_hidden, mlp_ratio=1.4, layers=a.vision_layers, heads=3,
                      image_size=a.image_size, patch_size=4, position_grid=a.image_size // 8)
        tower = QwenVisual(config)
        randomise(tower, gen)
        out.mkdir()
        (out / "config.json").write_text(json.dumps(dict(config, model_type=a.vision), indent=2) + "\n")
        tensors = {PREFIX[a.vision] + k: v.contiguous() for k, v in tower.state_dict().items()}
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return patches
    randomise(tower, gen)
    tower.save_pretrained(out)
    if PREFIX.get(a.vision) and a.vision != "clip":
        path = out / "model.safetensors"
        tensors = {"vision_model." + k.removeprefix("vision_model."): v for k, v in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    return patches + (0 if a.vision == "siglip_vision_model" or a.select_feature == "patch" else 1)


def load_vision(folder: Path, dtype=torch.float32):
    """The tower of a folder that `make_cases.py` wrote."""
    from safetensors.torch import load_file
    from transformers import AutoModel, Blip2VisionModel, CLIPVisionModel, SiglipVisionModel

    config = json.loads((folder / "config.json").read_text())
    classes = {"clip_vision_model": CLIPVisionModel, "clip": CLIPVisionModel, "siglip": SiglipVisionModel,
               "siglip_vision_model": SiglipVisionModel, "blip_2_vision_model": Blip2VisionModel}
    kind = config["model_type"]
    if kind == "qwen_vl_visual":
        tower = QwenVisual({k: v for k, v in config.items() if k != "model_type"})
        tensors = load_file(folder / "model.safetensors")
        tower.load_state_dict({k.removeprefix("transformer.visual."): v for k, v in tensors.items()})
        return tower.to(dtype)
    return classes.get(kind, AutoModel).from_pretrained(folder, dtype=dtype, attn_implementation="eager")


def last_norm(tower):
    """The norm after the layers: some versions of transformers put a `vision_model` between."""
    tower = getattr(tower, "vision_model", tower)
    return next(getattr(tower, name) for name in ("post_layernorm", "layernorm", "norm") if hasattr(tower, name))


def interpolates(tower) -> dict:
    """What has to be said for pictures of another size than the stored positions are for."""
    return {"interpolate_pos_encoding": True} if type(tower).__name__ == "ViTModel" else {}


def read_features(tower, pixels, layer: int, select: str, post_layernorm: bool):
    """(positions for the connector, all hidden states, c)."""
    with torch.no_grad():
        out = tower(pixels, output_hidden_states=True, **interpolates(tower))
        state = out.hidden_states[layer]
        if post_layernorm:
            state = last_norm(tower)(state)
        kind = type(tower).__name__
        if kind == "SiglipVisionModel":
            return state, out.hidden_states, out.pooler_output
        if kind == "QwenVisual":
            return state, out.hidden_states, state.mean(1)
        # Registers, which stand between the class token and the patches, are nobody's to read.
        first = 1 + getattr(tower.config, "num_register_tokens", 0)
        cls, patches = state[:, :1], state[:, first:]
        positions = patches if select == "patch" else torch.cat([cls, patches], dim=1)
        return positions, out.hidden_states, state[:, 0]
