#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the number of experts costs at the same active size: generation, and forward and backward of a training step in which
# every expert gets 128 tokens on average, by turns. usage: expert_counts.sh BUILD_DIR [RESULTS.json]
#   ROUNDS=5 EXPERTS="32 128 512" THREADS=2 COMPUTE=f32     routed experts; each model has a shared one too
#   INNER=128 LAYERS=2                                      the experts' inner size, and how many layers
set -eu
build=${1:?usage: expert_counts.sh BUILD_DIR [RESULTS.json]}
here=$(cd "$(dirname "$0")" && pwd)
emo=$build/examples/cli/emo
[ -x "$emo" ] || { echo "skipped: no program $emo"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
counts=${EXPERTS:-32 128 512}
most=0
for n in $counts; do
    [ "$n" -le $most ] || most=$n
done
rows=$(((most * 128 / 3 + 511) / 512)) # three routed experts a token
sides=()
for n in $counts; do
    cat >"$work/$n.json" <<END
{"model_type": "emo", "vocab_size": 2048, "hidden_size": 256, "intermediate_size": ${INNER:-128}, "num_hidden_layers": ${LAYERS:-2},
 "num_attention_heads": 8, "num_experts": $((n + 1)), "num_shared_experts": 1, "num_experts_per_tok": 4,
 "max_position_embeddings": 1024, "eos_token_id": 1}
END
    common="--config $work/$n.json --rounds 1 --threads ${THREADS:-2} --compute ${COMPUTE:-f32} --json --quiet"
    sides+=("same active size" "$n experts"
        "'$emo' bench $common --what decode train --prompt 512 --tokens 64 --batch $rows --seq-len 512")
done
python3 "$here/by_turns.py" --rounds "${ROUNDS:-5}" ${2:+--json "$2"} "${sides[@]}"
