#!/usr/bin/env python
"""Write one tiny case of a whole Qwen2.5-VL or Qwen3-VL: random weights, inputs and what `transformers` computes.

    python make_qwen_vl.py qwen2_5_vl CASE --seed 45
    python make_qwen_vl.py qwen3_vl CASE --seed 46
    python make_qwen_vl.py qwen2_5_vl CASE --seed 47 --own
    python make_qwen_vl.py qwen3_vl CASE --seed 48 --own

`system/` is what `save_pretrained` writes. Everything expected comes from `transformers`' own forward pass of the whole
model over ragged rows with padding, read by hooks; names are those of make_cases.py, but that there is no saliency:

vision.hidden.{i}    [2B, patches, v], in the order in which the tower holds them: blocks of 2 x 2, window after window
vision.features      the last of them, blocks row by row; of Qwen3-VL beside it, channel after channel, the layers that
                     are read as well
grad.merger.last.*, grad.merger.deep.{i}.*     of the mergers: norm, fc1, fc2

The loss is that of reference.py on the states of the last token. The tower is frozen, mergers and language model learn.
Pictures have 3 x 3 blocks, and windows of 2 x 2 of them, so that those at the edges are smaller.

With `--own` each picture has a grid of its own. `pictures/{i}.png` are drawn in six sizes and shapes; what the published
image processor (its PIL implementation) makes of them is what the model reads:

pixel_values.{i}     in the inputs: what the processor cut into patches, put together again, [3, height, width]
vision.*, visual_tokens     of all pictures, one behind the other, [1, sum over pictures, v]
position.places      `get_rope_index` of the whole model, [2B, T, 3], 0 at padding
"""
from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from make_cases import NEW, randomise
from reference import NoteLLM2Config, contrastive_loss, l2_normalise, quiet_transformers

PAD, START, END, IMAGE = 90, 91, 92, 93
PATCH, MERGE, FRAMES, SIDE = 4, 2, 2, 24
GRID = SIDE // PATCH
TOKENS = (GRID // MERGE) ** 2
# With --own: height and width of the pictures, and what the processor may make of them: of 4 to 9 blocks, which gives 3 x 2,
# 1 x 5, 2 x 3 (made larger), 3 x 3 (as it is), 6 x 1 and 2 x 3 of them.
SIZES = ((37, 23), (20, 61), (9, 14), (24, 24), (64, 13), (33, 40))
RANGE = {"shortest_edge": 4 * (MERGE * PATCH) ** 2, "longest_edge": 9 * (MERGE * PATCH) ** 2}


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


def expanded(input_ids, insert: str, tokens: list[int]):
    """The same with a token for each block of the picture, as the model's own processor writes it."""
    rows = []
    for row, count in zip(input_ids.tolist(), tokens):
        at = row.index(START) + 1
        rows.append([x for x in row[:at] + [IMAGE] * count + row[at + (insert == "replace"):] if x != PAD])
    padding = input_ids.shape[1] - int((input_ids != PAD).sum(-1).max())
    width = max(map(len, rows)) + padding
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def drawn_pictures(gen, folder: Path):
    """Pictures of all SIZES as files: waves of a colour each, with some noise."""
    folder.mkdir()
    files = []
    for index, (height, width) in enumerate(SIZES):
        wave = torch.rand(3, 3, generator=gen) * 0.6
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        of_channel = lambda w: 128 + 100 * torch.sin(w[0] * y + w[1] * x + 6 * w[2])
        values = torch.stack([of_channel(w) for w in wave], dim=-1)
        values = values + 20 * torch.randn(values.shape, generator=gen)
        path = folder / f"{index}.png"
        Image.fromarray(values.clamp(0, 255).to(torch.uint8).numpy()).save(path)
        files.append(path)
    return files


def processed(files, system: Path):
    """What the processor makes of the pictures: patches, grids, and the patches of each put together again."""
    from transformers import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(size=RANGE, patch_size=PATCH, merge_size=MERGE, temporal_patch_size=FRAMES)
    processor.save_pretrained(system)
    out = processor([Image.open(file) for file in files], return_tensors="pt")
    patches, grids = out["pixel_values"], out["image_grid_thw"].tolist()
    whole, start = [], 0
    for _, rows, columns in grids:
        own = patches[start:start + rows * columns]
        start += rows * columns
        own = own.reshape(rows // MERGE, columns // MERGE, MERGE, MERGE, 3, FRAMES, PATCH, PATCH)[:, :, :, :, :, 0]
        whole.append(own.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * PATCH, columns * PATCH).contiguous())
    return patches, grids, whole


def patches_of(pixels):
    """[pictures, 3, side, side] -> [pictures * patches, 3 * frames * patch * patch]: block after block, each frame the
    same picture."""
    n, blocks = len(pixels), GRID // MERGE
    x = pixels.reshape(n, 3, blocks, MERGE, PATCH, blocks, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.unsqueeze(6).expand(*x.shape[:6], FRAMES, PATCH, PATCH).reshape(n * GRID * GRID, -1)


def by_rows(kind: str, states, grids):
    """Blocks row by row, [pictures, patches, v] -> the same; `grids` are those of the pictures in one row of `states`."""
    if kind != "qwen2_5_vl":
        return states
    from transformers.vision_utils import get_vision_window_index

    order, _ = get_vision_window_index(torch.tensor(grids), MERGE, 2 * MERGE * PATCH, PATCH)
    n, count, width = states.shape
    blocks = states.reshape(n, count // MERGE**2, MERGE * MERGE, width)
    return blocks[:, torch.argsort(order)].reshape(n, count, width)


def head_name(name: str) -> str:
    """Name in mlrm's head of a parameter of `model.visual`."""
    for theirs, own in (("merger.", "merger.last."), ("deepstack_merger_list.", "merger.deep.")):
        if name.startswith(theirs):
            name = own + name.removeprefix(theirs)
            break
    for theirs, own in (("ln_q.", "norm."), ("mlp.0.", "fc1."), ("mlp.2.", "fc2."), ("linear_fc", "fc")):
        name = name.replace("." + theirs, "." + own)
    return name


def expectations(kind: str, model, temperature, input_ids, patches, grids, insert: str, own: bool):
    """name -> tensor, as documented above."""
    ids = expanded(input_ids, insert, [rows * columns // MERGE**2 for _, rows, columns in grids])
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
    model.model(input_ids=ids, attention_mask=mask, pixel_values=patches, image_grid_thw=torch.tensor(grids),
                mm_token_type_ids=(ids == IMAGE).int(), use_cache=False)
    for handle in handles:
        handle.remove()
    tower = seen.pop("tower")
    rows = 1 if own else notes
    e = {k: v.reshape(rows, len(patches) // rows, -1) if k.startswith("vision.") else v for k, v in seen.items()}
    depth = len(visual.blocks)
    deep = getattr(visual, "deepstack_visual_indexes", [])
    states = [e[f"vision.hidden.{depth}"]] + [e[f"vision.hidden.{index + 1}"] for index in deep]
    e["vision.features"] = torch.cat([by_rows(kind, state, grids if own else grids[:1]) for state in states], dim=-1)
    # The model has split them by picture in the meantime.
    tokens = torch.cat(tuple(tower.pooler_output))
    e["visual_tokens"] = tokens.reshape(rows, len(tokens) // rows, -1)
    if own:
        places, _ = model.model.get_rope_index(input_ids=ids, mm_token_type_ids=(ids == IMAGE).int(),
                                               image_grid_thw=torch.tensor(grids), attention_mask=mask)
        e["position.places"] = places.permute(1, 2, 0) * mask[..., None]
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
    parser.add_argument("--own", action="store_true", help="pictures with grids of their own, three pairs of them")
    a = parser.parse_args()
    if a.own:
        a.pairs = len(SIZES) // 2
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
    if a.own:
        patches, grids, pictures = processed(drawn_pictures(gen, a.case / "pictures"), a.case / "system")
        pixels = {f"pixel_values.{index}": picture for index, picture in enumerate(pictures)}
    else:
        drawn = torch.randn(len(input_ids), 3, SIDE, SIDE, generator=gen)
        patches, grids, pixels = patches_of(drawn), [[1, GRID, GRID]] * len(drawn), {"pixel_values": drawn}
    save_file({"input_ids": input_ids, **pixels}, a.case / "inputs.safetensors")

    def computed(dtype):
        """From what is on disk."""
        model = classes[a.kind].from_pretrained(a.case / "system", attn_implementation="eager", dtype=dtype).eval()
        for name, p in model.model.visual.named_parameters():
            p.requires_grad_("merger" in name)
        temperature = torch.nn.Parameter(torch.tensor([2.75], dtype=dtype))
        return expectations(a.kind, model, temperature, input_ids, patches.to(dtype), grids, insert, a.own)

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
        "basic", num_query_tokens=max(rows * columns // MERGE**2 for _, rows, columns in grids), mm_projector_type="linear", image_insert=insert, embedding_dim=-1,
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
