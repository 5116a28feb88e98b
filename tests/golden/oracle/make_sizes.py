#!/usr/bin/env python
"""Write tests/golden/images/smart_resize.json: sizes that `smart_resize` of transformers gives pictures.

    python make_sizes.py ../images/smart_resize.json

A row is [height, width, factor, min_pixels, max_pixels, height given, width given]; the last two are 0 where it refuses a
picture because one side is more than 200 times the other.
"""
from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

# Of Qwen2.5-VL, Qwen3-VL, the class, and others: factor, fewest and most pixels.
RANGES = ((28, 3136, 12845056), (32, 65536, 16777216), (28, 3136, 28 * 28 * 1280), (28, 200704, 200704), (8, 256, 576))


def side(rng: random.Random) -> int:
    """Small and large ones alike, and those halfway between multiples."""
    if rng.random() < 0.2:
        return rng.choice((4, 14, 16, 28, 32)) * rng.randint(1, 60)
    return int(2 ** rng.uniform(0, 13))


def main():
    rng = random.Random(7)
    rows = []
    for _ in range(600):
        height, width, (factor, least, most) = side(rng), side(rng), rng.choice(RANGES)
        try:
            given = smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most)
        except ValueError:
            given = (0, 0)
        rows.append([height, width, factor, least, most, *given])
    assert any(row[-1] == 0 for row in rows)
    Path(sys.argv[1]).write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
