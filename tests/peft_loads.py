#!/usr/bin/env python
"""Check that transformers and PEFT load a model folder with adapters, and find the hidden states that the merged
weights give.

    python tests/peft_loads.py RUN/model

Loads llm/ and adapter/ as PEFT does, compares hidden states of random tokens with those of the weights merged by hand,
saves the adapters again and compares the tensors. Exits 0 when all agree, 1 when not, 77 (skipped) without the
packages.
"""
import sys
import tempfile
from pathlib import Path

try:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
except ImportError as error:
    print(f"SKIPPED: {error.name} is not installed (pip install torch transformers peft safetensors)", file=sys.stderr)
    sys.exit(77)


def main(folder: Path) -> int:
    torch.manual_seed(0)
    stored = load_file(folder / "adapter" / "adapter_model.safetensors")
    base = AutoModelForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32)
    weights = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    config = model.peft_config["default"]
    loaded = {k.replace(".default.", "."): v for k, v in model.named_parameters() if "lora_" in k}
    assert loaded.keys() == stored.keys(), loaded.keys() ^ stored.keys()
    assert all(torch.equal(loaded[k], v) for k, v in stored.items()), "PEFT loaded other values"

    ids = torch.randint(0, base.config.vocab_size, (3, 17))
    with torch.no_grad():
        adapted = base.model(ids).last_hidden_state
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    plain = AutoModelForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32).model
    with torch.no_grad():
        without = plain(ids).last_hidden_state
        for name, a in stored.items():
            if ".lora_A." not in name:
                continue
            b = stored[name.replace(".lora_A.", ".lora_B.")]
            own = name.removeprefix("base_model.model.model.").replace(".lora_A.", ".")
            plain.get_parameter(own).copy_(weights[own] + scale * b @ a)
        merged = plain(ids).last_hidden_state
    error = (adapted - merged).abs().max() / merged.abs().max()
    change = (adapted - without).abs().max() / without.abs().max()

    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        saved = load_file(Path(again) / "adapter_model.safetensors")
    assert saved.keys() == stored.keys() and all(torch.equal(saved[k], v) for k, v in stored.items())
    print(f"{len(stored)} tensors; hidden states change by {change:.2e}; off the merged weights' by {error:.2e}")
    return 0 if error < 1e-5 < change else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
