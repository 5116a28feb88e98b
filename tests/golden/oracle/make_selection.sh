#!/bin/sh
# Writes every case of tests/golden/cases from scratch:
#
#     PYTHON=python3 sh tests/golden/oracle/make_selection.sh [OUT]
#
# OUT defaults to tests/golden/cases. With the versions named in tests/golden/README.md the files come
# out byte for byte as committed (on other processors the last bits of a sum may differ).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../cases}
# Two layers, narrow, and no two sizes alike, so that a mix-up of two shows.
make_case() {
    name=$1
    shift
    ${PYTHON:-python3} "$here/make_cases.py" --out "$out/$name" --layers 2 --batch 2 --hidden 16 \
        --vision-hidden 12 --qformer-hidden 20 --qformer-layers 2 "$@"
}

make_case llama_notellm2_scalar_gate --seed 11 --family llama --variant notellm2 \
    --gate-kind scalar --hidden 24 --kv-heads 1 --query-tokens 3
make_case llama_basic_mha --seed 12 --family llama --variant basic --kv-heads 4 --projector mlp3x_gelu
make_case llama_lateearly_no_head --seed 13 --family llama --variant lateearly \
    --embedding-dim -1 --projector linear --query-tokens 1
make_case qwen2_notellm2 --seed 14 --family qwen2 --variant notellm2 --batch 3
make_case qwen2_basic_after_ragged --seed 15 --family qwen2 --variant basic --kv-heads 1 \
    --image-insert after --ragged-image --attention-mask padding --projector linear
make_case qwen3_notellm2_after_ragged --seed 16 --family qwen3 --variant notellm2 \
    --image-insert after --ragged-image --projector mlp3x_gelu --vision-act gelu --kv-heads 4 --query-tokens 5
make_case qwen3_micl_ragged --seed 17 --family qwen3 --variant micl --ragged-image \
    --attention-mask padding --qformer-layers 3 --text-weight 3 --vision-weight 2 --embedding-dim 7
make_case qwen3_latefusion --seed 18 --family qwen3 --variant latefusion --vision-act gelu --temperature 0.5
make_case qwen3_text_no_head --seed 19 --family qwen3 --variant text --embedding-dim -1 --llm-grads all

# The other families and options of decoders, as small as they go.
make_small() {
    name=$1
    shift
    make_case "$name" --intermediate 18 --qformer-hidden 8 --qformer-layers 1 --qformer-intermediate 10 \
        --vision-hidden 6 --vision-layers 1 --query-tokens 2 --embedding-dim 6 --projector linear --words 5 "$@"
}

make_small mistral_basic_window --seed 20 --family mistral --variant basic --hidden 12 --heads 6 --kv-heads 2 \
    --vocab 101 --sliding-window 5 --ragged-image
make_small llama_text_llama3 --seed 21 --family llama --variant text --hidden 24 --heads 3 --kv-heads 1 \
    --vocab 97 --rope-scaling llama3 --words 9
make_small llama_text_linear --seed 22 --family llama --variant text --heads 2 --kv-heads 2 \
    --rope-scaling linear
make_small llama_text_dynamic --seed 23 --family llama --variant text --heads 2 --kv-heads 1 \
    --rope-scaling dynamic --positions 7
make_small opt_micl_ragged --seed 24 --family opt --variant micl --hidden 10 --heads 2 --positions 40 \
    --ragged-image --attention-mask padding
make_small opt_basic_projected --seed 25 --family opt --variant basic --hidden 9 --heads 3 --vocab 99 \
    --positions 33 --word-embed-proj-dim 7 --embedding-dim -1
make_small qwen_micl_after_ragged --seed 26 --family qwen --variant micl --hidden 10 --heads 5 --vocab 103 \
    --image-insert after --ragged-image
make_small qwen_text --seed 27 --family qwen --variant text --hidden 12 --heads 6 --llm-grads all
make_small gemma2_micl_ragged --seed 51 --family gemma2 --variant micl --hidden 12 --heads 3 --kv-heads 1 --vocab 101 \
    --sliding-window 5 --ragged-image --attention-mask padding
make_small gemma3_notellm2_ragged --seed 52 --family gemma3_text --variant notellm2 --hidden 20 --heads 4 --kv-heads 2 \
    --sliding-window 4 --head-dim 6 --ragged-image
make_small phi3_basic_window --seed 53 --family phi3 --variant basic --hidden 18 --heads 3 --kv-heads 1 --vocab 97 \
    --sliding-window 6 --ragged-image --attention-mask padding
make_small smollm3_micl_ragged --seed 54 --family smollm3 --variant micl --hidden 12 --heads 3 --kv-heads 3 \
    --ragged-image
make_small granite_basic_ragged --seed 55 --family granite --variant basic --hidden 20 --heads 5 --kv-heads 1 \
    --ragged-image --attention-mask padding

# The vision encoders and connectors, as small as still tells them apart.
make_vision_case() {
    name=$1
    shift
    make_case "$name" --layers 1 --hidden 8 --qformer-hidden 12 --no-saliency \
        --vision-layers 2 --vision-inner 20 --qformer-intermediate 24 --embedding-dim 6 "$@"
}

make_vision_case clip_whole_mlp_connector --seed 31 --family qwen2 --variant lateearly --vision clip \
    --vision-act gelu --connector mlp --select-layer -2 --select-feature patch
make_vision_case siglip_notellm2 --seed 32 --family llama --variant notellm2 --vision siglip_vision_model \
    --vision-act gelu_pytorch_tanh --vision-hidden 21 --query-tokens 5 --select-layer 1
make_vision_case siglip_latefusion_post_norm --seed 33 --family qwen2 --variant latefusion \
    --vision siglip_vision_model --vision-act gelu_pytorch_tanh --post-layernorm
make_vision_case blip2_micl_post_norm --seed 34 --family llama --variant micl --vision blip_2_vision_model \
    --vision-act gelu --post-layernorm --projector linear --query-tokens 5
make_vision_case qwen_vl_visual_resampler --seed 35 --family qwen3 --variant lateearly --hidden 12 \
    --image-insert after --vision qwen_vl_visual --vision-act gelu --image-size 16 --vision-hidden 18 \
    --connector resampler --resampler-heads 3 --query-tokens 9
# Positions stretched from 5 by 5 and 2 by 2 to 3 by 3, and squeezed with antialiasing from 7 by 7.
make_vision_case dinov2_notellm2 --seed 36 --family llama --variant notellm2 --vision dinov2 --vision-act gelu \
    --vision-hidden 15 --stored-size 20
make_vision_case dinov2_swiglu_latefusion_post_norm --seed 37 --family qwen2 --variant latefusion --vision dinov2 \
    --vision-act gelu --swiglu --mlp-ratio 3 --stored-size 8 --post-layernorm
make_vision_case dinov2_with_registers_mlp_connector --seed 38 --family qwen3 --variant lateearly \
    --vision dinov2_with_registers --vision-act gelu --vision-hidden 18 --stored-size 28 --connector mlp \
    --select-layer -2
# Angles instead of stored positions: 3 by 3 patches, and 5 by 5 that the config speaks of while 3 by 3 are read.
make_vision_case dinov3_notellm2 --seed 42 --family llama --variant notellm2 --vision dinov3_vit --vision-act gelu \
    --vision-hidden 24
make_vision_case dinov3_gated_latefusion_post_norm --seed 43 --family qwen2 --variant latefusion --vision dinov3_vit \
    --vision-act gelu --vision-hidden 36 --swiglu --stored-size 20 --post-layernorm --select-layer -1
make_vision_case vit_micl --seed 39 --family llama --variant micl --vision vit --vision-act gelu --stored-size 16 \
    --select-feature patch --query-tokens 3

# Whole models as others publish them.
make_system() {
    kind=$1
    name=$2
    shift 2
    rm -rf "$out/$name"
    make_vision_case "$name" --vision-layers 1 --qformer-layers 1 --words 4 "$@"
    ${PYTHON:-python3} "$here/make_systems.py" "$kind" "$out/$name"
}

make_system blip-2 system_blip2 --seed 41 --family opt --variant basic --hidden 10 --heads 2 --positions 60 --vocab 97 \
    --vision blip_2_vision_model --vision-act gelu --post-layernorm --projector linear --query-tokens 5 \
    --embedding-dim -1 --ragged-image
make_system qwen-vl system_qwen_vl --seed 42 --family qwen --variant basic --hidden 12 --heads 3 --vocab 99 \
    --image-insert after --vision qwen_vl_visual --vision-act gelu --image-size 16 --vision-hidden 18 \
    --connector resampler --resampler-heads 1 --query-tokens 9 --embedding-dim -1 --select-feature patch
make_qwen() {
    kind=$1
    name=$2
    shift 2
    rm -rf "$out/$name"
    ${PYTHON:-python3} "$here/make_qwen_vl.py" "$kind" "$out/$name" "$@"
}

make_qwen qwen2_5_vl system_qwen2_5_vl --seed 45
make_qwen qwen3_vl system_qwen3_vl --seed 46
make_qwen qwen2_5_vl system_qwen2_5_vl_own_grids --seed 47 --own
make_qwen qwen3_vl system_qwen3_vl_own_grids --seed 48 --own
make_system notellm2 system_notellm2_mllama --seed 43 --family llama --variant notellm2 --kv-heads 1 --heads 2
make_system notellm2 system_notellm2_qwen_selfvl --seed 44 --family qwen --variant notellm2 --hidden 12 --heads 3 \
    --vocab 103 --image-insert after --qformer-hidden 20
