#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Prompts and generation at the size of the released models, libemo against llama.cpp, by turns on the same weights.
# usage: against_llama.sh BUILD_DIR DIR
#   ROUNDS=5 LAYERS=2 THREADS="1 2" TYPES="bf16 q8_0 q4_0" SHAPE=released-2-layers PROMPT=512 TOKENS=16 PYTHON=python3
# DIR gets the model and its GGUF files (1.6 GB a layer and 0.8 GB, for each type less by its size), which are used again,
# and results.json with every round. Status 77 when llama_cpp or the program is missing. Prints one table: tokens a second,
# medians over the rounds; the ratio says how many times llama.cpp's speed libemo's is.
set -eu
build=${1:?usage: against_llama.sh BUILD_DIR DIR}
dir=${2:?usage: against_llama.sh BUILD_DIR DIR}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
emo=$build/examples/cli/emo
[ -x "$emo" ] || { echo "skipped: no program $emo"; exit 77; }
"$python" -c 'import llama_cpp; print("llama-cpp-python", llama_cpp.__version__)' || { echo "skipped: no llama_cpp"; exit 77; }
layers=${LAYERS:-2}
prompt=${PROMPT:-512}
tokens=${TOKENS:-16}
model=$dir/${SHAPE:-released-2-layers}.$layers
mkdir -p "$dir"
[ -e "$model/config.json" ] ||
    "$emo" bench --shape "${SHAPE:-released-2-layers}" --layers "$layers" --weights bf16 --what prefill --rounds 1 \
        --prompt 2 --tokens 1 --save "$model" --quiet >/dev/null
sides=()
for type in ${TYPES:-bf16 q8_0 q4_0}; do
    file=$model.$type.gguf
    [ -e "$file" ] || "$emo" quantize --model "$model" --type "$type" --out "$file" --no-errors --quiet >/dev/null
    ours=$file
    [ "$type" = bf16 ] && ours=$model
    for n in ${THREADS:-1 2}; do
        sides+=("$type, $n threads" libemo "'$emo' bench --model '$ours' --what prefill decode --rounds 1 --prompt $prompt \
            --tokens $tokens --threads $n --compute bf16 --json --quiet"
            "$type, $n threads" llama.cpp "'$python' '$here/llama_infer.py' '$file' --threads $n --prompt $prompt \
            --tokens $tokens 2>/dev/null")
    done
done
exec "$python" "$here/by_turns.py" --rounds "${ROUNDS:-5}" --json "$dir/results.json" "${sides[@]}"
