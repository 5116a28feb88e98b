#!/usr/bin/env python3
"""Makes the folders beside this file: published checkpoints in miniature.

  python make.py             # needs torch, transformers, safetensors
  python make.py opt-350m    # some of them

Each folder has a `config.json` with every key of the checkpoint that it is named after, as it was published, with
small sizes; weights drawn from a seed, under the names in which the checkpoint stores them; and in
`expected.safetensors` an input, all hidden states that transformers computes from it and, of whole models, what
the connector makes of the last one. The code of Qwen 1 and Qwen-VL is not in transformers: theirs is computed by
`../oracle/qwen1.py` and `../oracle/qwen_vl.py`.
"""
import json, pathlib, shutil, sys, tempfile
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification,
                          AutoModelForImageTextToText)

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent / "oracle"))
from qwen1 import QWenConfig, QWenLMHeadModel
from qwen_vl import QwenVisual, Resampler

# ---- decoders: one size for all of a line, then what each config.json says ----------------------

LINE = dict(hidden_size=16, intermediate_size=20, num_attention_heads=4, num_hidden_layers=2, vocab_size=40,
            bos_token_id=1, eos_token_id=2, hidden_act="silu", initializer_range=0.02, use_cache=True)
LLAMA = dict(LINE, architectures=["LlamaForCausalLM"], model_type="llama")
NEW_LLAMA = dict(LLAMA, attention_bias=False, attention_dropout=0.0, mlp_bias=False, num_key_value_heads=2,
                 pretraining_tp=1, rms_norm_eps=1e-5, rope_scaling=None, tie_word_embeddings=False)
ROPE3 = dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16, rope_type="llama3")
MISTRAL = dict(LINE, architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=2,
               rms_norm_eps=1e-5, tie_word_embeddings=False, max_position_embeddings=32768, torch_dtype="bfloat16")
QWEN2 = dict(LINE, architectures=["Qwen2ForCausalLM"], model_type="qwen2", attention_dropout=0.0,
             num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False,
             max_position_embeddings=32768, sliding_window=32768, max_window_layers=21, torch_dtype="bfloat16")
QWEN3 = dict(LINE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", attention_bias=False,
             attention_dropout=0.0, head_dim=6, num_key_value_heads=2, rms_norm_eps=1e-6, rope_scaling=None,
             rope_theta=1000000, sliding_window=None, use_sliding_window=False, max_window_layers=28,
             max_position_embeddings=40960, tie_word_embeddings=True, torch_dtype="bfloat16")
OPT = dict(_name_or_path="facebook/opt-125m", activation_dropout=0.0, activation_function="relu",
           architectures=["OPTForCausalLM"], attention_dropout=0.0, bos_token_id=2, do_layer_norm_before=True,
           dropout=0.1, eos_token_id=2, ffn_dim=24, hidden_size=16, init_std=0.02, layerdrop=0.0,
           max_position_embeddings=32, model_type="opt", num_attention_heads=4, num_hidden_layers=2,
           pad_token_id=1, prefix="</s>", torch_dtype="float16", transformers_version="4.21.0.dev0",
           use_cache=True, vocab_size=40, word_embed_proj_dim=16)

GEMMA2 = dict(
    {k: v for k, v in LINE.items() if k != "hidden_act"}, architectures=["Gemma2ForCausalLM"], attention_bias=False,
    attention_dropout=0.0, attn_logit_softcapping=50.0, bos_token_id=2, cache_implementation="hybrid", eos_token_id=1,
    final_logit_softcapping=30.0, head_dim=6, hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
    max_position_embeddings=8192, model_type="gemma2", num_key_value_heads=2, pad_token_id=0,
    query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=4, torch_dtype="float32",
    transformers_version="4.42.4")
GEMMA3 = dict(
    {k: v for k, v in LINE.items() if k != "hidden_act"}, architectures=["Gemma3ForCausalLM"], attention_bias=False,
    attention_dropout=0.0, attn_logit_softcapping=None, bos_token_id=2, cache_implementation="hybrid",
    eos_token_id=[1, 106], final_logit_softcapping=None, head_dim=6, hidden_activation="gelu_pytorch_tanh",
    max_position_embeddings=32768, model_type="gemma3_text", num_hidden_layers=7, num_key_value_heads=1, pad_token_id=0,
    query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_local_base_freq=10000, rope_scaling=None, rope_theta=1000000,
    sliding_window=4, sliding_window_pattern=6, torch_dtype="bfloat16", transformers_version="4.50.0.dev0")
PHI3 = dict(
    LINE, _name_or_path="Phi-3-mini-4k-instruct", architectures=["Phi3ForCausalLM"], attention_bias=False,
    attention_dropout=0.0, auto_map={"AutoConfig": "configuration_phi3.Phi3Config"}, embd_pdrop=0.0,
    eos_token_id=32000, max_position_embeddings=4096, model_type="phi3", num_key_value_heads=4,
    original_max_position_embeddings=4096, pad_token_id=0, resid_pdrop=0.0, rms_norm_eps=1e-5, rope_scaling=None,
    rope_theta=10000.0, sliding_window=5, tie_word_embeddings=False, torch_dtype="bfloat16",
    transformers_version="4.40.2")
SMOLLM3 = dict(
    LINE, architectures=["SmolLM3ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=None,
    eos_token_id=128012, layer_types=["full_attention"] * 5, max_position_embeddings=65536, max_window_layers=28,
    mlp_bias=False, model_type="smollm3", no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0, 1],
    num_hidden_layers=5, num_key_value_heads=2, pad_token_id=0, pretraining_tp=2, rms_norm_eps=1e-6,
    rope_scaling=None, rope_theta=5000000.0, sliding_window=None, torch_dtype="bfloat16",
    transformers_version="4.54.0.dev0", use_cache=False, use_sliding_window=False)
GRANITE = dict(
    LINE, architectures=["GraniteForCausalLM"], attention_bias=False, attention_dropout=0.1,
    attention_multiplier=0.015625, bos_token_id=0, embedding_multiplier=12.0, eos_token_id=0, logits_scaling=8.0,
    max_position_embeddings=131072, mlp_bias=False, model_type="granite", num_key_value_heads=2, pad_token_id=0,
    residual_multiplier=0.22, rms_norm_eps=1e-5, rope_scaling=None, rope_theta=5000000.0, tie_word_embeddings=True,
    torch_dtype="bfloat16", transformers_version="4.47.0.dev0")

DECODERS = {
    "llama-7b": dict(LLAMA, max_position_embeddings=2048, max_sequence_length=2048, pad_token_id=0,
                     rms_norm_eps=1e-6, tie_word_embeddings=False, torch_dtype="float16",
                     transformers_version="4.30.0.dev0"),
    "llama-2-7b": dict(LLAMA, _name_or_path="meta-llama/Llama-2-7b-hf", max_position_embeddings=4096,
                       num_key_value_heads=4, pretraining_tp=1, rms_norm_eps=1e-5, rope_scaling=None,
                       tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.31.0.dev0"),
    "llama-3-8b": {k: v for k, v in dict(NEW_LLAMA, max_position_embeddings=8192, rope_theta=500000.0,
                   torch_dtype="bfloat16", transformers_version="4.40.0.dev0").items() if k != "mlp_bias"},
    "llama-3.1-8b": dict(NEW_LLAMA, max_position_embeddings=131072, rope_theta=500000.0,
                         eos_token_id=[3, 4, 5], rope_scaling=dict(ROPE3, factor=8.0), torch_dtype="bfloat16",
                         transformers_version="4.43.0.dev0"),
    "llama-3.2-1b": dict(NEW_LLAMA, head_dim=4, max_position_embeddings=131072, rope_theta=500000.0,
                         rope_scaling=dict(ROPE3, factor=32.0), tie_word_embeddings=True, torch_dtype="bfloat16",
                         transformers_version="4.45.0.dev0"),
    "unsloth-llama-3.2-1b": dict(NEW_LLAMA, _attn_implementation_autoset=True, head_dim=4, pad_token_id=6,
                                 max_position_embeddings=131072, rope_theta=500000.0,
                                 rope_scaling=dict(ROPE3, factor=32.0), tie_word_embeddings=True,
                                 torch_dtype="bfloat16", transformers_version="4.51.3", unsloth_fixed=True,
                                 unsloth_version="2025.4.1"),
    "tinyllama-1.1b": dict(NEW_LLAMA, max_position_embeddings=2048, rope_theta=10000.0, torch_dtype="bfloat16",
                           transformers_version="4.35.0"),
    "smollm-135m": dict(NEW_LLAMA, _name_or_path="/fsx/smollm/135M", max_position_embeddings=2048,
                        rope_theta=10000.0, tie_word_embeddings=True, torch_dtype="bfloat16",
                        transformers_version="4.41.2"),
    "smollm2-135m": dict(NEW_LLAMA, initializer_range=0.041666666666666664, is_llama_config=True,
                         max_position_embeddings=8192, pad_token_id=2, rope_interleaved=False, rope_theta=100000,
                         tie_word_embeddings=True, torch_dtype="bfloat16", transformers_version="4.42.3",
                         **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}}),
    "mistral-7b-v0.1": dict(MISTRAL, rope_theta=10000.0, sliding_window=4096, transformers_version="4.34.0.dev0"),
    "mistral-7b-v0.2": dict(MISTRAL, attention_dropout=0.0, rope_theta=1000000.0, sliding_window=None,
                            transformers_version="4.36.0"),
    "mistral-7b-v0.3": dict(MISTRAL, attention_dropout=0.0, rope_theta=1000000.0, sliding_window=None,
                            transformers_version="4.42.0.dev0"),
    "mistral-nemo-instruct": dict(MISTRAL, attention_dropout=0.0, head_dim=6, rope_theta=1000000.0,
                                  sliding_window=None, transformers_version="4.43.0.dev0"),
    "qwen1.5-0.5b": dict(QWEN2, tie_word_embeddings=True, transformers_version="4.37.0"),
    "qwen2-0.5b": dict(QWEN2, max_window_layers=24, tie_word_embeddings=True, transformers_version="4.40.1"),
    "qwen2.5-0.5b": dict(QWEN2, max_window_layers=24, tie_word_embeddings=True, use_mrope=False,
                         transformers_version="4.40.1"),
    "qwen2.5-7b-instruct": dict(QWEN2, max_window_layers=28, tie_word_embeddings=False,
                                transformers_version="4.43.1"),
    "qwen3-0.6b": dict(QWEN3, transformers_version="4.51.0"),
    "qwen3-embedding-0.6b": dict(QWEN3, max_position_embeddings=32768, transformers_version="4.51.3"),
    "opt-125m": OPT,
    "opt-1.3b": dict(OPT, _name_or_path="facebook/opt-1.3b", transformers_version="4.21.0.dev0"),
    "opt-2.7b": dict(OPT, _name_or_path="facebook/opt-2.7b", _remove_final_layer_norm=False),
    "opt-350m": dict(OPT, _name_or_path="facebook/opt-350m", do_layer_norm_before=False, word_embed_proj_dim=6,
                     transformers_version="4.20.0.dev0"),
    "gemma-2-2b": GEMMA2,
    "gemma-3-1b-it": GEMMA3,
    "phi-3-mini-4k-instruct": PHI3,
    "smollm3-3b": SMOLLM3,
    "granite-3.1-2b": GRANITE,
}

QWEN = dict(architectures=["QWenLMHeadModel"], attn_dropout_prob=0.0,
            auto_map=dict(AutoConfig="configuration_qwen.QWenConfig",
                          AutoModelForCausalLM="modeling_qwen.QWenLMHeadModel"),
            bf16=False, emb_dropout_prob=0.0, fp16=False, fp32=False, hidden_size=16, initializer_range=0.02,
            intermediate_size=20, kv_channels=4, layer_norm_epsilon=1e-6, max_position_embeddings=8192,
            model_type="qwen", no_bias=True, num_attention_heads=4, num_hidden_layers=2, onnx_safe=None,
            rotary_emb_base=10000, rotary_pct=1.0, scale_attn_weights=True, seq_length=8192,
            tie_word_embeddings=False, tokenizer_class="QWenTokenizer", transformers_version="4.32.0",
            use_cache=True, use_dynamic_ntk=True, use_flash_attn="auto", use_logn_attn=True, vocab_size=40)
OF_VL = dict({k: v for k, v in QWEN.items() if k != "tokenizer_class"}, seq_length=2048,
             tokenizer_type="QWenTokenizer", torch_dtype="bfloat16", transformers_version="4.31.0",
             use_flash_attn=False,
             # The published file names neither the number of queries (256) nor that of stored positions (16 x 16).
             visual=dict(heads=2, image_size=36, image_start_id=37, layers=2, mlp_ratio=1.9231, output_dim=16,
                         patch_size=2, width=8))
QWENS = {
    "qwen-7b": dict(QWEN, max_position_embeddings=32768),
    "qwen-1.8b": dict(QWEN, softmax_in_fp32=False, use_cache_quantization=False, use_cache_kernel=False),
    "qwen-vl": OF_VL,
    "qwen-vl-chat": dict(OF_VL, eos_token_id=36, _name_or_path="./"),
}

# ---- vision encoders ------------------------------------------------------------------------------

# What transformers 4 wrote into each section until 4.26 or so.
DUMP = dict(
    _name_or_path="", add_cross_attention=False, architectures=None, attention_dropout=0.0, bad_words_ids=None,
    begin_suppress_tokens=None, bos_token_id=None, chunk_size_feed_forward=0, cross_attention_hidden_size=None,
    decoder_start_token_id=None, diversity_penalty=0.0, do_sample=False, dropout=0.0, early_stopping=False,
    encoder_no_repeat_ngram_size=0, eos_token_id=None, exponential_decay_length_penalty=None, finetuning_task=None,
    forced_bos_token_id=None, forced_eos_token_id=None, id2label={"0": "LABEL_0", "1": "LABEL_1"},
    initializer_factor=1.0, initializer_range=0.02, is_decoder=False, is_encoder_decoder=False,
    label2id={"LABEL_0": 0, "LABEL_1": 1}, length_penalty=1.0, max_length=20, min_length=0,
    no_repeat_ngram_size=0, num_beam_groups=1, num_beams=1, num_return_sequences=1, output_attentions=False,
    output_hidden_states=False, output_scores=False, pad_token_id=None, prefix=None, problem_type=None,
    pruned_heads={}, remove_invalid_values=False, repetition_penalty=1.0, return_dict=True,
    return_dict_in_generate=False, sep_token_id=None, suppress_tokens=None, task_specific_params=None,
    temperature=1.0, tf_legacy_loss=False, tie_encoder_decoder=False, tie_word_embeddings=True,
    tokenizer_class=None, top_k=50, top_p=1.0, torch_dtype=None, torchscript=False,
    transformers_version="4.16.0.dev0", typical_p=1.0, use_bfloat16=False)
TOWER = dict(hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=2)
CLIP_TEXT = dict(hidden_size=8, intermediate_size=8, num_attention_heads=1, num_hidden_layers=1, vocab_size=9,
                 max_position_embeddings=5, projection_dim=8, model_type="clip_text_model", eos_token_id=2)
SIGLIP_TEXT = dict(CLIP_TEXT, model_type="siglip_text_model", projection_size=8)

def clip(vision, **top):
    vision = dict(TOWER, model_type="clip_vision_model", num_channels=3, projection_dim=8, **vision)
    return dict(dict(architectures=["CLIPModel"], initializer_factor=1.0, logit_scale_init_value=2.6592,
                     model_type="clip", projection_dim=8, text_config=CLIP_TEXT, torch_dtype="float32",
                     transformers_version=None), vision_config=vision, **top)

def openai(patch, side):
    vision = dict(DUMP, hidden_act="quick_gelu", image_size=side, layer_norm_eps=1e-5, patch_size=patch)
    return clip(vision, _commit_hash=None, text_config_dict=None, vision_config_dict=None)

def laion(patch, side, act="gelu"):
    return clip(dict(DUMP, hidden_act=act, image_size=side, layer_norm_eps=1e-5, patch_size=patch,
                     transformers_version="4.24.0.dev0"), _commit_hash="94a64189c3535c1cb44acfcccd7b0908c1c8eb23",
                text_config_dict=None, vision_config_dict=None, transformers_version="4.24.0.dev0")

def siglip(patch, side, **vision):
    vision = dict(TOWER, image_size=side, model_type="siglip_vision_model", patch_size=patch, **vision)
    return dict(architectures=["SiglipModel"], initializer_factor=1.0, model_type="siglip",
                text_config=SIGLIP_TEXT, torch_dtype="float32", transformers_version="4.37.0.dev0",
                vision_config=vision)

TOWERS = {
    "clip-vit-base-patch32": openai(8, 16),
    "clip-vit-base-patch16": openai(4, 16),
    "clip-vit-large-patch14": openai(4, 12),
    "clip-vit-large-patch14-336": openai(4, 20),
    "clip-vision-alone": dict(TOWER, architectures=["CLIPVisionModel"], attention_dropout=0.0, dropout=0.0,
                              hidden_act="quick_gelu", image_size=16, initializer_factor=1.0,
                              initializer_range=0.02, layer_norm_eps=1e-5, model_type="clip_vision_model",
                              num_channels=3, patch_size=8, projection_dim=8, torch_dtype="float32",
                              transformers_version="4.47.1", _attn_implementation_autoset=True),
    "open-clip-h14": laion(4, 12),
    "open-clip-g14": laion(4, 12),
    "open-clip-bigg14": laion(4, 12),
    "siglip-base-patch16-224": siglip(4, 16),
    "siglip-large-patch16-384": siglip(4, 24),
    "siglip-so400m-patch14-384": siglip(5, 18),
    "siglip2-base-patch16-224": dict(siglip(4, 16, attention_dropout=0.0, hidden_act="gelu_pytorch_tanh",
                                            layer_norm_eps=1e-6, num_channels=3),
                                     transformers_version="4.49.0.dev0"),
    "siglip2-so400m-patch14-384": siglip(5, 18, attention_dropout=0.0, hidden_act="gelu_pytorch_tanh",
                                         layer_norm_eps=1e-6, num_channels=3),
}

def dino(side, **more):
    """Positions for pictures of 20 pixels; the states are those of pictures of `side`."""
    config = dict(apply_layernorm=True, architectures=["Dinov2Model"], attention_probs_dropout_prob=0.0,
                  drop_path_rate=0.0, hidden_act="gelu", hidden_dropout_prob=0.0, hidden_size=16, image_size=20,
                  initializer_range=0.02, layer_norm_eps=1e-6, layerscale_value=1.0, mlp_ratio=4, model_type="dinov2",
                  num_attention_heads=2, num_channels=3, num_hidden_layers=2, out_features=["stage2"],
                  out_indices=[2], patch_size=4, qkv_bias=True, reshape_hidden_states=True,
                  stage_names=["stem", "stage1", "stage2"], torch_dtype="float32",
                  transformers_version="4.32.0.dev0", use_swiglu_ffn=False)
    return dict(config, **more), side

def vit(side, **more):
    config = dict(architectures=["ViTModel"], attention_probs_dropout_prob=0.0, hidden_act="gelu",
                  hidden_dropout_prob=0.0, hidden_size=16, image_size=16, initializer_range=0.02,
                  intermediate_size=24, layer_norm_eps=1e-12, model_type="vit", num_attention_heads=2, num_channels=3,
                  num_hidden_layers=2, patch_size=4, qkv_bias=True, transformers_version="4.13.0.dev0")
    return dict(config, **more), side

REGISTERS = dict(architectures=["Dinov2WithRegistersModel"], interpolate_antialias=True, interpolate_offset=0.0,
                 model_type="dinov2_with_registers", num_register_tokens=4, transformers_version="4.47.0.dev0")
def dino3(side, **more):
    config = dict(apply_layernorm=True, architectures=["DINOv3ViTModel"], attention_dropout=0.0, drop_path_rate=0.0,
                  hidden_act="gelu", hidden_size=16, image_size=16, initializer_range=0.02, intermediate_size=40,
                  key_bias=False, layer_norm_eps=1e-5, layerscale_value=1.0, mlp_bias=True, model_type="dinov3_vit",
                  num_attention_heads=2, num_channels=3, num_hidden_layers=2, num_register_tokens=4,
                  out_features=["stage2"], out_indices=[2], patch_size=4, pos_embed_jitter=None,
                  pos_embed_rescale=2.0, pos_embed_shift=None, proj_bias=True, query_bias=True,
                  reshape_hidden_states=True, rope_theta=100.0, stage_names=["stem", "stage1", "stage2"],
                  torch_dtype="float32", transformers_version="4.56.0.dev0", use_gated_mlp=False, value_bias=True)
    return dict(config, **more), side

# Towers that read pictures of other sizes than their positions are stored for, with that size.
STRETCHED = {
    "dinov2-small": dino(12),
    "dinov2-base": dino(24, transformers_version="4.31.0.dev0"),
    "dinov2-large": dino(20),
    "dinov2-giant": dino(8, use_swiglu_ffn=True),
    "dinov2-with-registers-base": dino(12, **REGISTERS),
    "dinov2-with-registers-giant": dino(28, **REGISTERS, use_swiglu_ffn=True),
    "vit-base-patch16-224": vit(16, architectures=["ViTForImageClassification"],
                                id2label={"0": "tench", "1": "goldfish"}, label2id={"tench": 0, "goldfish": 1}),
    "vit-base-patch16-224-in21k": vit(16, transformers_version="4.13.0.dev0"),
    "dino-vits16": vit(20, _name_or_path="/home/niels/checkpoints/dino", transformers_version="4.10.0.dev0"),
    "dinov3-vits16-pretrain-lvd1689m": dino3(12),
    "dinov3-vit7b16-pretrain-lvd1689m": dino3(20, hidden_act="silu", query_bias=False, use_gated_mlp=True,
                                              value_bias=False),
}
# What stands in `preprocessor_config.json` beside them.
BIT = dict(crop_size=dict(height=224, width=224), do_center_crop=True, do_convert_rgb=True, do_normalize=True,
           do_rescale=True, do_resize=True, image_mean=[0.485, 0.456, 0.406],
           image_processor_type="BitImageProcessor", image_std=[0.229, 0.224, 0.225], resample=3,
           rescale_factor=0.00392156862745098, size=dict(shortest_edge=256))
PREPROCESSORS = {
    "dinov2-small": BIT,
    "dinov2-with-registers-base": BIT,
    "dinov3-vits16-pretrain-lvd1689m": dict(
        crop_size=None, data_format="channels_first", default_to_square=True, device=None, do_center_crop=None,
        do_convert_rgb=None, do_normalize=True, do_rescale=True, do_resize=True, image_mean=[0.485, 0.456, 0.406],
        image_processor_type="DINOv3ViTImageProcessorFast", image_std=[0.229, 0.224, 0.225], input_data_format=None,
        resample=2, rescale_factor=0.00392156862745098, return_tensors=None, size=dict(height=224, width=224)),
    "vit-base-patch16-224": dict(do_normalize=True, do_resize=True, image_mean=[0.5, 0.5, 0.5],
                                 image_std=[0.5, 0.5, 0.5], size=224),
    "vit-base-patch16-224-in21k": dict(do_normalize=True, do_resize=True, image_mean=[0.5, 0.5, 0.5],
                                       image_processor_type="ViTFeatureExtractor", image_std=[0.5, 0.5, 0.5],
                                       resample=2, size=224),
    "dino-vits16": dict(do_normalize=True, do_resize=True, feature_extractor_type="ViTFeatureExtractor",
                        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=2, size=224),
}

# ---- whole models ---------------------------------------------------------------------------------

BLIP2 = dict(
    architectures=["Blip2ForConditionalGeneration"], initializer_factor=1.0, initializer_range=0.02,
    model_type="blip-2", num_query_tokens=4, torch_dtype="float32", transformers_version=None,
    use_decoder_only_language_model=True,
    qformer_config=dict({k: v for k, v in DUMP.items() if k not in ("attention_dropout", "dropout")},
                        attention_probs_dropout_prob=0.1, classifier_dropout=None, cross_attention_frequency=2,
                        encoder_hidden_size=16, hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=12,
                        intermediate_size=16, layer_norm_eps=1e-12, max_position_embeddings=512,
                        model_type="blip_2_qformer", num_attention_heads=3, num_hidden_layers=2, pad_token_id=0,
                        position_embedding_type="absolute", transformers_version="4.27.0.dev0", vocab_size=9),
    text_config=dict(DUMP, **dict(OPT, _name_or_path="facebook/opt-2.7b", _remove_final_layer_norm=False,
                                  enable_bias=True, layer_norm_elementwise_affine=True,
                                  transformers_version="4.27.0.dev0")),
    vision_config=dict(DUMP, **TOWER, hidden_act="gelu", image_size=12, initializer_range=1e-10,
                       layer_norm_eps=1e-6, model_type="blip_2_vision_model", num_channels=3, patch_size=4,
                       projection_dim=8, qkv_bias=True, transformers_version="4.27.0.dev0"),
)
SYSTEMS = {
    "blip2-opt-2.7b": BLIP2,
    # As transformers 4.46 and later wrote it anew.
    "blip2-opt-2.7b-new": dict(BLIP2, image_text_hidden_size=256, image_token_index=39,
                               transformers_version="4.47.0.dev0",
                               qformer_config=dict(model_type="blip_2_qformer", encoder_hidden_size=16,
                                                   hidden_size=12, intermediate_size=16, num_attention_heads=3,
                                                   num_hidden_layers=2, use_qformer_text_input=False,
                                                   vocab_size=9)),
}


def drawn(model, seed):
    """Every weight anew: initial values of norms and biases (ones and zeros) would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            centre = 1.0 if ("norm" in name or "ln_" in name) and name.endswith("weight") else 0.0
            weight.copy_(centre + 0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval().float()


def weights(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(pathlib.Path(folder) / "model.safetensors")


def write(name, config, state, expected):
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in state.items()}, out / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in expected.items()}, out / "expected.safetensors")
    for file in out.glob("*.safetensors"):  # safetensors writes them for the owner only
        file.chmod(0o644)
    if name in PREPROCESSORS:
        (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[name], indent=1) + "\n")


def config_of(config):
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        return AutoConfig.from_pretrained(folder)


def words(states):
    """All states in one tensor; OPT-350m's last is not as wide as the others."""
    if states[-1].shape == states[0].shape:
        return dict(hidden_states=torch.stack(states))
    return dict(hidden_states=torch.stack(states[:-1]), last_hidden_state=states[-1][None])


def decoder(config, seed):
    model = drawn(AutoModelForCausalLM.from_config(config_of(config), dtype=torch.float32), seed)
    ids = torch.randint(7, 40, (2, 9), generator=torch.Generator().manual_seed(seed))
    states = model(ids, output_hidden_states=True).hidden_states
    return weights(model), dict(input_ids=ids, **words(states))


def tower(config, seed):
    model = drawn(AutoModel.from_config(config_of(config), dtype=torch.float32), seed)
    side = config.get("vision_config", config)["image_size"]
    pixels = torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(seed))
    out = getattr(model, "vision_model", model)(pixels, output_hidden_states=True)
    # Of a whole model only the tower is read: the rest would be dead weight here.
    state = {k: v for k, v in weights(model).items() if not k.startswith("text_model.")}
    return state, dict(pixel_values=pixels, hidden_states=torch.stack(out.hidden_states))


def stretched(config_and_side, seed):
    config, side = config_and_side
    classifies = config["architectures"] == ["ViTForImageClassification"]
    kind = AutoModelForImageClassification if classifies else AutoModel
    model = drawn(kind.from_config(config_of(config), dtype=torch.float32), seed)
    pixels = torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(seed))
    stretch = {"interpolate_pos_encoding": True} if config["model_type"] == "vit" else {}
    states = getattr(model, "vit", model)(pixels, output_hidden_states=True, **stretch).hidden_states
    return weights(model), dict(pixel_values=pixels, hidden_states=torch.stack(states))


def blip2(config, seed):
    model = drawn(AutoModelForImageTextToText.from_config(config_of(config), dtype=torch.float32), seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, 38, (2, 9), generator=generator)
    pixels = torch.randn((2, 3, 12, 12), generator=generator)
    states = model.language_model(ids, output_hidden_states=True).hidden_states
    seen = model.vision_model(pixels, output_hidden_states=True)
    queries = model.qformer(query_embeds=model.query_tokens.expand(2, -1, -1),
                            encoder_hidden_states=seen.last_hidden_state).last_hidden_state
    return weights(model), dict(input_ids=ids, **words(states), pixel_values=pixels,
                                vision_hidden_states=torch.stack(seen.hidden_states),
                                visual_tokens=model.language_projection(queries)[None])


def qwen(config, seed):
    own = {k: v for k, v in config.items() if k != "visual"}
    model = nn.ModuleDict(dict(llm=QWenLMHeadModel(QWenConfig(**own, attn_implementation="eager"))))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, 36, (2, 9), generator=generator)
    visual = config.get("visual")
    if visual:
        model["tower"] = QwenVisual(dict(visual, position_grid=16))
        width = visual["output_dim"]
        model["resampler"] = Resampler(256, width, max(width // 128, 1), visual["width"])
        fixed = model["resampler"].pos_embed.clone()
    drawn(model, seed)
    expected = dict(input_ids=ids, **words(
        model["llm"].transformer(ids, output_hidden_states=True).hidden_states))
    state = model["llm"].state_dict()
    if visual:
        # Computed, though it is stored.
        model["resampler"].pos_embed.data = fixed
        side = visual["image_size"]
        pixels = torch.randn((1, 3, side, side), generator=generator)
        seen = model["tower"](pixels).hidden_states
        expected |= dict(pixel_values=pixels, vision_hidden_states=torch.stack(seen),
                         visual_tokens=model["resampler"](seen[-1])[None])
        state |= {f"transformer.visual.{k}": v for k, v in model["tower"].state_dict().items()}
        behind = ("ln_post.", "proj")
        for name, value in model["resampler"].state_dict().items():
            state["transformer.visual." + ("" if name.startswith(behind) else "attn_pool.") + name] = value
    return state, expected


@torch.no_grad()
def main():
    kinds = [(0, decoder, DECODERS), (100, tower, TOWERS), (150, stretched, STRETCHED), (200, blip2, SYSTEMS), (300, qwen, QWENS)]
    wanted = sys.argv[1:]
    made = 0
    for first, make, configs in kinds:
        for seed, (name, config) in enumerate(configs.items(), first):
            if not wanted or name in wanted:
                own = config[0] if make is stretched else config
                write(name, own, *make(config, seed))
                made += 1
    print(made, "folders")


main()
