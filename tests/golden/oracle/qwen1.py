"""Qwen 1 (Qwen-7B, Qwen-7B-Chat) in PyTorch, as small as it goes: `transformers` has no class for it.

Written from the published description: the technical report (arXiv 2309.16609, section 2.3) and the
`config.json` and tensor names of Qwen/Qwen-7B-Chat. It was checked

- against `transformers.Qwen2Model` (5.23.0) with the fused matrix split in three, on random weights:
  every hidden state and every gradient (`python qwen1.py` repeats it and prints the differences);
- by reading, against `modeling_qwen.py` of Qwen/Qwen-7B-Chat: order of query, key and value in
  `c_attn`, which of `w1` and `w2` is the gate, no biases but that of `c_attn`, RMSNorm in float32, the
  half-split layout of the rotary angles, `intermediate_size` twice the width of the feed-forward
  network. It was not run against that file, nor on the released weights.

What the model does only to input longer than `seq_length` (`use_dynamic_ntk`: another rotary base;
`use_logn_attn`: queries times log(position) / log(seq_length)) changes nothing in shorter input and is
left out: longer input raises.

    x = wte[ids]
    per layer:  q, k, v = c_attn(ln_1(x)) in three equal parts, rotated (q, k)
                x = x + c_proj(attention(q, k, v))
                y = ln_2(x);  x = x + c_proj(w1(y) * silu(w2(y)))
    out = ln_f(x)
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class QWenConfig(PreTrainedConfig):
    """The keys of the published config.json that matter here."""

    model_type = "qwen"

    def __init__(self, vocab_size=151936, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
                 kv_channels=128, intermediate_size=22016, layer_norm_epsilon=1e-6, initializer_range=0.02,
                 rotary_pct=1.0, rotary_emb_base=10000, max_position_embeddings=8192, seq_length=8192,
                 use_dynamic_ntk=True, use_logn_attn=True, no_bias=True, attn_dropout_prob=0.0,
                 emb_dropout_prob=0.0, scale_attn_weights=True, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.kv_channels = num_attention_heads, kv_channels
        self.intermediate_size, self.layer_norm_epsilon = intermediate_size, layer_norm_epsilon
        self.initializer_range, self.rotary_pct, self.rotary_emb_base = initializer_range, rotary_pct, rotary_emb_base
        self.max_position_embeddings, self.seq_length = max_position_embeddings, seq_length
        self.use_dynamic_ntk, self.use_logn_attn, self.no_bias = use_dynamic_ntk, use_logn_attn, no_bias
        self.attn_dropout_prob, self.emb_dropout_prob = attn_dropout_prob, emb_dropout_prob
        self.scale_attn_weights = scale_attn_weights
        super().__init__(**kwargs)


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight


def rotate(x, base):
    """x [B, heads, T, width]: channel i and i + width / 2 turn by position * base ** (-2 i / width)."""
    seq, width = x.shape[-2:]
    inverse = base ** (-torch.arange(0, width, 2).float() / width)
    angle = torch.arange(seq).float()[:, None] * inverse
    cos, sin = angle.cos().type_as(x), angle.sin().type_as(x)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    probs = torch.softmax(query @ key.transpose(2, 3) * scaling + attention_mask, dim=-1, dtype=torch.float32)
    return (probs.to(query.dtype) @ value).transpose(1, 2).contiguous(), probs


class Attention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        width = config.kv_channels * config.num_attention_heads
        self.c_attn = nn.Linear(config.hidden_size, 3 * width)
        self.c_proj = nn.Linear(width, config.hidden_size, bias=not config.no_bias)

    def forward(self, x, mask):
        heads = (*x.shape[:2], self.config.num_attention_heads, self.config.kv_channels)
        q, k, v = (part.reshape(heads).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1))
        base = self.config.rotary_emb_base
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        out, _ = attend(self, rotate(q, base), rotate(k, base), v, mask, scaling=self.config.kv_channels**-0.5)
        return self.c_proj(out.flatten(2))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        bias, inner = not config.no_bias, config.intermediate_size // 2
        self.w1 = nn.Linear(config.hidden_size, inner, bias=bias)
        self.w2 = nn.Linear(config.hidden_size, inner, bias=bias)
        self.c_proj = nn.Linear(inner, config.hidden_size, bias=bias)

    def forward(self, x):
        return self.c_proj(self.w1(x) * F.silu(self.w2(x)))


class Block(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.ln_1 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = Attention(config, layer_idx)
        self.ln_2 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class QWenPreTrainedModel(PreTrainedModel):
    config_class = QWenConfig
    base_model_prefix = "transformer"
    _supports_attention_backend = True


class QWenModel(QWenPreTrainedModel):
    """Hidden states after the final norm; all of them on request, the last one normalised."""

    def __init__(self, config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.ModuleList([Block(config, i) for i in range(config.num_hidden_layers)])
        self.ln_f = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self):
        return self.wte

    def set_input_embeddings(self, value):
        self.wte = value

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, output_hidden_states=False, **_):
        x = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        seq = x.shape[1]
        if seq > self.config.seq_length:
            raise ValueError("input longer than seq_length is not covered")
        causal = torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
        if attention_mask is not None:
            causal = causal & attention_mask.bool()[:, None, None, :]
        mask = torch.zeros(causal.shape, dtype=x.dtype).masked_fill(~causal, torch.finfo(x.dtype).min)
        states = []
        for block in self.h:
            states.append(x)
            x = block(x, mask)
        x = self.ln_f(x)
        return BaseModelOutputWithPast(x, hidden_states=(*states, x) if output_hidden_states else None)


class QWenLMHeadModel(QWenPreTrainedModel):
    """With the LM head that a checkpoint has and that nothing here uses."""

    def __init__(self, config):
        super().__init__(config)
        self.transformer = QWenModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoConfig.register("qwen", QWenConfig)
AutoModel.register(QWenConfig, QWenModel)
AutoModelForCausalLM.register(QWenConfig, QWenLMHeadModel)


def check_against_qwen2():
    """Largest differences of hidden states and gradients to Qwen2Model with the same weights."""
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    config = QWenConfig(vocab_size=101, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, kv_channels=8,
                        intermediate_size=36, seq_length=64, max_position_embeddings=64)
    ours = QWenModel._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.3) + (p.ndim == 1))
    theirs = Qwen2Model._from_config(Qwen2Config(
        vocab_size=101, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3,
        intermediate_size=18, rms_norm_eps=config.layer_norm_epsilon, max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}), attn_implementation="eager").eval()
    names = {"wte.weight": ["embed_tokens.weight"], "ln_f.weight": ["norm.weight"]}
    for i in range(3):
        a, b = f"h.{i}.", f"layers.{i}."
        names |= {a + "ln_1.weight": [b + "input_layernorm.weight"],
                  a + "ln_2.weight": [b + "post_attention_layernorm.weight"],
                  a + "attn.c_proj.weight": [b + "self_attn.o_proj.weight"],
                  a + "mlp.w1.weight": [b + "mlp.up_proj.weight"],
                  a + "mlp.w2.weight": [b + "mlp.gate_proj.weight"],
                  a + "mlp.c_proj.weight": [b + "mlp.down_proj.weight"]}
        for kind in ("weight", "bias"):
            names[a + "attn.c_attn." + kind] = [f"{b}self_attn.{x}_proj.{kind}" for x in "qkv"]
    parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, p in ours.named_parameters():
            for other, part in zip(names[name], p.chunk(len(names[name]))):
                parameters.pop(other).copy_(part)
    assert not parameters, sorted(parameters)
    ids, mask = torch.randint(0, 101, (4, 19)), torch.ones(4, 19, dtype=torch.long)
    mask[1, 12:] = 0
    results = []
    for model in (ours, theirs):
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        (out.last_hidden_state * mask[..., None]).tanh().sum().backward()
        results.append([(h * mask[..., None]).detach() for h in out.hidden_states])
    states = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results))
    theirs_by_name = {n: p.grad for n, p in theirs.named_parameters()}
    gradients = max(
        float((p.grad - g).abs().max() / g.abs().max())
        for n, p in ours.named_parameters()
        for g in [torch.cat([theirs_by_name[o] for o in names[n]])])
    return states, gradients


if __name__ == "__main__":
    print("largest difference to Qwen2Model, relative to the tensor: states %.1e, gradients %.1e" % check_against_qwen2())
