#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The C++ binding and the emo program give the same: a tokenizer, the weights of a training bit for bit, a mask, a text.
# usage: test_cpp_program.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
emo=$build/examples/cli/emo
[ -x "$emo" ] || { echo "no program in this build"; exit 77; }
command -v "${CXX:-c++}" >/dev/null 2>&1 || { echo "no C++ compiler"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CXX:-c++} -std=c++17 -Wall -Wextra -Werror -I "$source/bindings/cpp" -I "$source/include" \
    "$source/tests/bindings/cpp_program.cpp" -o "$work/binding" -L "$build" -lemo -Wl,-rpath,"$build"
cd "$work"
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    echo "{\"text\": \"$i times the river bridge, water and stone, boat and shore, fish in the net, the tide and the wave\"}"
    echo "{\"text\": \"$i times oven and flour, butter and sugar, knead and bake the bread until the crust is brown\"}"
done >docs.jsonl
echo 'the river and the bridge over the water' >note.txt
echo '{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 9,
 "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 256}' >config.json
mkdir cpp
"$emo" tokenizer train --data docs.jsonl --vocab-size 280 --out tok.json --quiet
"$emo" train --config config.json --tokenizer tok.json --data docs.jsonl --pool uniform:2:8 --batch 4 --seq-len 32 \
    --steps 10 --seed 3 --threads 1 --out run --quiet >/dev/null
"$emo" select --model run --calibration note.txt --keep 4 --method layerwise --out mask.json --quiet >/dev/null
"$emo" generate --model run --prompt 'river bridge' --tokens 15 --quiet >text
./binding docs.jsonl run/config.json note.txt cpp >cpp/text
same() { cmp "$1" "$2" || { echo "FAILED: $3 differ"; exit 1; }; }
same tok.json cpp/tok.json "the tokenizers"
same run/model.safetensors cpp/run/model.safetensors "the weights"
"$emo" mask subtract mask.json cpp/mask.json --out less.json --quiet >/dev/null # of different shapes: an error
[ "$(grep -o '"keep".*' mask.json)" = "$(grep -o '"keep".*' cpp/mask.json)" ] || { echo "FAILED: the masks differ"; exit 1; }
[ "$(wc -c <cpp/text)" -gt 5 ] && grep -qF "$(cat cpp/text)" text || { echo "FAILED: the texts differ: $(cat text) and $(cat cpp/text)"; exit 1; }
echo "tokenizer, weights, mask and text are the same"
