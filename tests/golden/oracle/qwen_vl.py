"""Qwen-VL's visual tower and resampler (arXiv 2308.12966) in PyTorch.

`transformers` has no class for Qwen-VL: its code travels with the checkpoint. This is a small reference
written from the paper's description and the published checkpoint's names, read side by side with the
`visual.py` that is published with the checkpoint and, for the positions, with `get_2d_sincos_pos_embed`
of MAE (arXiv 2111.06377). What was checked: names and shapes of all tensors; that rows of `in_proj`
are ordered by head and then by query, key, value; that LayerNorm's epsilon is 1e-6 everywhere; that both
position tables are stretched by bicubic interpolation (`align_corners=False`); that the resampler adds
positions to queries and keys but not to values; that GELU is the exact one.

Names are those below `transformer.visual.` in the checkpoint.
"""
from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6


def stretch(table: torch.Tensor, wanted: int) -> torch.Tensor:
    """Positions [n, width] of a square grid for another square grid of `wanted` positions."""
    n, width = table.shape
    if n == wanted:
        return table
    old, new = round(n**0.5), round(wanted**0.5)
    image = table.reshape(1, old, old, width).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False)
    return image.permute(0, 2, 3, 1).reshape(wanted, width)


def sin_cos_2d(width: int, grid: int) -> torch.Tensor:
    """[grid * grid, width], row-major: half of the channels for the column, half for the row."""
    frequency = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    at = torch.arange(grid, dtype=torch.float64)
    one = torch.cat([torch.sin(at[:, None] * frequency), torch.cos(at[:, None] * frequency)], dim=1)
    column = one[None, :, :].expand(grid, grid, -1)
    row = one[:, None, :].expand(grid, grid, -1)
    return torch.cat([column, row], dim=-1).reshape(grid * grid, width).float()


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        batch, seq, width = x.shape
        by_head = self.in_proj(x).view(batch, seq, self.heads, 3, width // self.heads)
        q, k, v = (by_head[:, :, :, i].transpose(1, 2) for i in range(3))
        weights = torch.softmax(q @ k.transpose(2, 3) / (width // self.heads) ** 0.5, dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(batch, seq, width))


class Block(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(OrderedDict(
            c_fc=nn.Linear(width, inner), gelu=nn.GELU(), c_proj=nn.Linear(inner, width)))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class QwenVisual(nn.Module):
    """The tower up to its last layer. `config`: the keys of the section `visual`, and `position_grid`,
    the side of the grid of stored positions (16 in the published checkpoint, whose file does not say)."""

    def __init__(self, config: dict):
        super().__init__()
        c = self.config = SimpleNamespace(**config)
        c.hidden_size = c.width
        self.conv1 = nn.Conv2d(3, c.width, c.patch_size, c.patch_size, bias=False)
        self.positional_embedding = nn.Parameter(torch.zeros(c.position_grid**2, c.width))
        self.ln_pre = nn.LayerNorm(c.width, eps=EPS)
        inner = int(c.width * c.mlp_ratio)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(c.width, c.heads, inner) for _ in range(c.layers))

    def forward(self, pixels, output_hidden_states=True):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = self.ln_pre(x + stretch(self.positional_embedding, x.shape[1]))
        states = [x]
        for block in self.transformer.resblocks:
            states.append(block(states[-1]))
        return SimpleNamespace(hidden_states=tuple(states))


class Resampler(nn.Module):
    """`attn_pool`, `ln_post` and `proj`: [batch, patches, kv_width] to [batch, queries, width]."""

    def __init__(self, queries, width, heads, kv_width):
        super().__init__()
        grid = round(queries**0.5)
        assert grid**2 == queries
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.pos_embed = nn.Parameter(sin_cos_2d(width, grid), requires_grad=False)
        self.kv_proj = nn.Linear(kv_width, width, bias=False) if kv_width != width else nn.Identity()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_q = nn.LayerNorm(width, eps=EPS)
        self.ln_kv = nn.LayerNorm(width, eps=EPS)
        self.ln_post = nn.LayerNorm(width, eps=EPS)
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, x):
        positions = stretch(self.pos_embed, x.shape[1])
        x = self.ln_kv(self.kv_proj(x))
        query = (self.ln_q(self.query) + self.pos_embed).expand(x.shape[0], -1, -1)
        out, _ = self.attn(query, x + positions, x, need_weights=False)
        return self.ln_post(out) @ self.proj
