#!/usr/bin/env python
"""Write one tiny case of a whole Qwen2.5-VL or Qwen3-VL: random weights, inputs and what `transformers` computes.

    python make_qwen_vl.py qwen2_5_vl CASE --seed 45
    python make_qwen_vl.py qwen3_vl CASE --seed 46

`system/` is what `save_pretrained` writes. Everything expected comes from `transformers`' own forward pass of the whole
model over ragged rows with padding, read by hooks; names are those of make_cases.py, but that there is no saliency:

vision.hidden.{i}    [2B, patches, v], in the order in which the tower holds them: blocks of 2 x 2, window after window
vision.features      the last of them, blocks row by row; of Qwen3-VL beside it, channel after channel, the layers that
                     are read as well
grad.merger.last.*, grad.merger.deep.{i}.*     of the mergers: norm, fc1, fc2

The loss is that of reference.py on the states of the last token. The tower is frozen, mergers and language model learn.
Pictures have 3 x 3 blocks, and windows of 2 x 2 of them, so that those at the edges are smaller.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from make_cases import NEW, randomise
from reference import NoteLLM2Config, contrastive_loss, l2_normalise, quiet_transformers

PAD, START, END, IMAGE = 90, 91, 92, 93
PATCH, MERGE, FRAMES, SIDE = 4, 2, 2, 24
GRID = SIDE // PATCH
TOKENS = (GRID // MERGE) ** 2


def config_of(kind: str):
    from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

    ids = dict(image_token_id=IMAGE, video_token_id=94, vision_start_token_id=START, vision_end_token_id=END)
    text = dict(vocab_size=101, hidden_size=24, intermediate_size=36, num_key_value_heads=1, num_attention_heads=2,
                max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=1, eos_token_id=2)
    vision = dict(hidden_size=16, num_heads=2, intermediate_size=20, patch_size=PATCH, spatial_merge_size=MERGE,
                  temporal_patch_size=FRAMES, out_hidden_size=24)
    if kind == "qwen2_5_vl":
        text.update(num_hidden_layers=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                                                          "mrope_section": [1, 2, 3]})
        vision.update(depth=3, window_size=2 * MERGE * PATCH, fullatt_block_indexes=[1], tokens_per_second=2)
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids, tie_word_embeddings=True)
    text.update(num_hidden_layers=3, head_dim=16, rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                                                                   "mrope_section": [4, 2, 2], "mrope_interleaved": True})
    vision.update(depth=3, hidden_size=8, num_heads=1, num_position_embeddings=16, deepstack_visual_indexes=[0, 2])
    return Qwen3VLConfig(text_config=text, vision_config=vision, **ids, tie_word_embeddings=True)


def make_input_ids(gen, insert: str, pairs: int):
    """The rows as mlrm reads them: one image token each, behind which (`after`) or in whose place the picture stands."""
    text = lambda n: torch.randint(5, 80, (n,), generator=gen).tolist()
    picture = [START, END] if insert == "after" else [START, IMAGE, END]
    rows = [text(3 + r % 3) + picture + text(2 + 3 * (r % 2) + r // 2) for r in range(2 * pairs)]
    width = max(map(len, rows)) + 1
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def expanded(input_ids, insert: str):
    """The same with a token for each block of the picture, as the model's own processor writes it."""
    rows = []
    for row in input_ids.tolist():
        at = row.index(START) + 1
        rows.append(row[:at] + [IMAGE] * TOKENS + row[at + (insert == "replace"):])
    return torch.tensor(rows)


def patches_of(pixels):
    """[pictures, 3, side, side] -> [pictures * patches, 3 * frames * patch * patch]: block after block, each frame the
    same picture."""
    n, blocks = len(pixels), GRID // MERGE
    x = pixels.reshape(n, 3, blocks, MERGE, PATCH, blocks, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.unsqueeze(6).expand(*x.shape[:6], FRAMES, PATCH, PATCH).reshape(n * GRID * GRID, -1)


def by_rows(kind: str, states):
    """Blocks row by row, [pictures, patches, v] -> the same."""
    if kind != "qwen2_5_vl":
        return states
    from transformers.vision_utils import get_vision_window_index

    order, _ = get_vision_window_index(torch.tensor([[1, GRID, GRID]]), MERGE, 2 * MERGE * PATCH, PATCH)
    n, count, width = states.shape
    return states.reshape(n, TOKENS, MERGE * MERGE, width)[:, torch.argsort(order)].reshape(n, count, width)


def head_name(name: str) -> str:
    """Name in mlrm's head of a parameter of `model.visual`."""
    for theirs, own in (("merger.", "merger.last."), ("deepstack_merger_list.", "merger.deep.")):
        if name.startswith(theirs):
            name = own + name.removeprefix(theirs)
            break
    for theirs, own in (("ln_q.", "norm."), ("mlp.0.", "fc1."), ("mlp.2.", "fc2."), ("linear_fc", "fc")):
        name = name.replace("." + theirs, "." + own)
    return name


def expectations(kind: str, model, temperature, input_ids, pixels, insert: str):
    """name -> tensor, as documented above."""
    ids = expanded(input_ids, insert)
    notes = len(ids)
    mask = (ids != PAD).long()
    visual, llm = model.model.visual, model.model.language_model
    seen, handles = {}, []

    def keep(module, name, output=False):
        if output:
            handles.append(module.register_forward_hook(lambda _m, _a, out: seen.__setitem__(name, out)))
        else:
            handles.append(module.register_forward_pre_hook(lambda _m, args: seen.__setitem__(name, args[0])))

    for index, block in enumerate(visual.blocks):
        keep(block, f"vision.hidden.{index}")
        keep(block, f"vision.hidden.{index + 1}", output=True)
    for index, layer in enumerate(llm.layers):
        keep(layer, f"llm.hidden.{index}")
    keep(llm.norm, "llm.final", output=True)
    keep(visual, "tower", output=True)
    model.zero_grad(set_to_none=True)
    model.model(input_ids=ids, attention_mask=mask, pixel_values=patches_of(pixels),
                image_grid_thw=torch.tensor([[1, GRID, GRID]] * notes), mm_token_type_ids=(ids == IMAGE).int(),
                use_cache=False)
    for handle in handles:
        handle.remove()
    tower = seen.pop("tower")
    e = {k: v.reshape(notes, GRID * GRID, -1) if k.startswith("vision.") else v for k, v in seen.items()}
    depth = len(visual.blocks)
    deep = getattr(visual, "deepstack_visual_indexes", [])
    states = [e[f"vision.hidden.{depth}"]] + [e[f"vision.hidden.{index + 1}"] for index in deep]
    e["vision.features"] = torch.cat([by_rows(kind, state) for state in states], dim=-1)
    # The model has split them by picture in the meantime.
    e["visual_tokens"] = torch.cat(tuple(tower.pooler_output)).reshape(notes, TOKENS, -1)
    e["valid_mask"] = mask
    e["position.final"] = mask.sum(-1) - 1
    pooled = e["llm.final"][torch.arange(notes), e["position.final"]]
    loss, _, similarity = contrastive_loss(pooled, temperature)
    temperature.grad = None
    loss.backward()
    e.update({"final.pooled": pooled, "final.embedding": l2_normalise(pooled), "final.similarity": similarity,
              "loss": loss, "loss.multimodal": loss, "grad.temperature": temperature.grad})
    for name, p in visual.named_parameters():
        if p.requires_grad:
            e["grad." + head_name(name)] = p.grad
    last = f"layers.{len(llm.layers) - 1}."
    for name, p in llm.named_parameters():
        few = name in ("embed_tokens.weight", "norm.weight") or "layers.0.self_attn" in name or name.startswith(last)
        if few:
            e[f"grad.llm.model.{name}"] = p.grad
    return {k: v.detach().contiguous().clone() for k, v in e.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("qwen2_5_vl", "qwen3_vl"))
    parser.add_argument("case", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--pairs", type=int, default=2)
    a = parser.parse_args()
    import transformers
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

    torch.set_num_threads(1)
    quiet_transformers()
    classes = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
    insert = "after" if a.kind == "qwen2_5_vl" else "replace"
    gen = torch.Generator().manual_seed(a.seed)
    made = classes[a.kind]._from_config(config_of(a.kind), attn_implementation="eager", dtype=torch.float32)
    randomise(made, gen)
    a.case.mkdir(parents=True)
    made.save_pretrained(a.case / "system")
    (a.case / "system" / "generation_config.json").unlink(missing_ok=True)
    input_ids = make_input_ids(gen, insert, a.pairs)
    pixels = torch.randn(len(input_ids), 3, SIDE, SIDE, generator=gen)
    save_file({"input_ids": input_ids, "pixel_values": pixels}, a.case / "inputs.safetensors")

    def computed(dtype):
        """From what is on disk."""
        model = classes[a.kind].from_pretrained(a.case / "system", attn_implementation="eager", dtype=dtype).eval()
        for name, p in model.model.visual.named_parameters():
            p.requires_grad_("merger" in name)
        temperature = torch.nn.Parameter(torch.tensor([2.75], dtype=dtype))
        return expectations(a.kind, model, temperature, input_ids, pixels.to(dtype), insert)

    expected, wide = computed(torch.float32), computed(torch.float64)
    assert all(v.isfinite().all() for v in expected.values() if v.is_floating_point())
    save_file(expected, a.case / "expected.safetensors")
    rounding = {}
    for k, v in expected.items():
        if v.is_floating_point():
            d = (v.double() - wide[k].double()).abs()
            d = d * expected["valid_mask"][..., None] if k.startswith("llm.") else d
            rounding[k] = {"max_abs_diff_to_f64": float(f"{d.max():.3g}"), "max_abs": float(f"{v.abs().max():.3g}")}
    cfg = NoteLLM2Config.for_variant(
        "basic", num_query_tokens=TOKENS, mm_projector_type="linear", image_insert=insert, embedding_dim=-1,
        pad_token_id=PAD, image_token_id=START if insert == "after" else IMAGE, image_emb_token_id=99)
    case = {
        "family": a.kind, "variant": "basic", "seed": a.seed, "batch_pairs": a.pairs, "dtype": "float32", "mode": "eval",
        "config": {k: v for k, v in dataclasses.asdict(cfg).items() if k not in NEW or v != NEW[k]},
        "qformer_config": None, "temperature": 2.75,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "sequence": {"input_len": input_ids.shape[1], "expanded_len": expected["valid_mask"].shape[1]},
        "loss": {"loss": float(expected["loss"])}, "rounding": rounding,
    }
    (a.case / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    for file in a.case.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"{a.case}: {a.kind} seed {a.seed} loss {case['loss']['loss']}")


if __name__ == "__main__":
    main()
