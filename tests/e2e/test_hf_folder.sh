#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Folders that `emo` wrote, read and run by PyTorch (and transformers, where it is there): SOURCE_DIR BUILD_DIR
set -u
SOURCE=$(realpath "${1:?usage: test_hf_folder.sh SOURCE_DIR BUILD_DIR}")
EMO=$(realpath "${2:?}/examples/cli/emo" 2>/dev/null)
[ -x "$EMO" ] || exit 77
python3 -c 'import torch' 2>/dev/null || { echo 'PyTorch is not installed: skipped'; exit 77; }
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1

for i in $(seq 40); do
    echo "{\"text\": \"the boat number $i crossed the river and the judge of court $i ate bread\"}"
done >docs.jsonl
# Large weights, so that every token has its own logits.
cat >config.json <<'END'
{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
 "num_key_value_heads": 2, "num_experts_per_layer": [7, 0, 9], "num_shared_experts_per_layer": [1, 0, 1],
 "num_experts_per_tok": 3, "dense_intermediate_size": 40, "max_position_embeddings": 128, "initializer_range": 0.2,
 "auto_map": {"AutoModelForCausalLM": "modeling_emo.EmoForCausalLM"}}
END
prompt='the boat crossed the river'
"$EMO" tokenizer train --data docs.jsonl --vocab-size 300 --out tok.json --quiet &&
    "$EMO" train --config config.json --tokenizer tok.json --data docs.jsonl --pool uniform:2:6 --steps 3 --batch 2 \
        --seq-len 32 --out model --quiet || exit 1
printf '%s' "$prompt" | "$EMO" tokenizer encode --tokenizer tok.json >ids || exit 1
failures=0
for dtype in f32 bf16 f16; do
    "$EMO" convert --model model --dtype $dtype --max-shard-size 40KB --out $dtype --quiet || exit 1
    "$EMO" generate --model $dtype --prompt "$prompt" --tokens 10 --ignore-eos --json >$dtype.json || exit 1
    # Both sides compute in float32 on the same rounded weights.
    python3 "$SOURCE/tests/e2e/check_folder.py" $dtype $dtype.json $dtype 1e-4 ids || failures=$((failures + 1))
done
grep -q modeling_emo f16/config.json || { echo 'config.json lost its auto_map'; failures=$((failures + 1)); }
exit $((failures > 0))
