#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Prompts and generation at the size of the released models, libemo against llama.cpp, by turns on the same weights.
# usage: against_llama.sh BUILD_DIR DIR     (ROUNDS=5 LAYERS=2 THREADS="1 2" TYPES="bf16" PYTHON=python3)
# DIR gets the model and its GGUF files: 1.6 GB a layer and 0.8 GB, for each type less by its size. They are kept and used
# again. Status 77 when llama_cpp or a program is missing. Prints every round, then medians.
set -eu
build=${1:?usage: against_llama.sh BUILD_DIR DIR}
dir=${2:?usage: against_llama.sh BUILD_DIR DIR}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
bench=$build/tests/bench_infer
emo=$build/examples/cli/emo
for program in "$bench" "$emo"; do
    [ -x "$program" ] || { echo "skipped: no program $program (build with -DEMO_BUILD_TESTS=ON)"; exit 77; }
done
"$python" -c 'import llama_cpp; print("llama-cpp-python", llama_cpp.__version__)' || { echo "skipped: no llama_cpp"; exit 77; }
layers=${LAYERS:-2}
mkdir -p "$dir/$layers"
[ -e "$dir/$layers/model.safetensors" ] || "$bench" make "$dir/$layers" "$layers"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
note() { # side type threads line
    echo "$1 $2, $3 threads: $4"
    printf '%s\n' "$4" | sed -E "s|.*: ([0-9.]+) tokens/s; after it ([0-9.]+) tokens/s.*|$1 $2 $3 \1 \2|" >>"$results"
}
for ((round = 0; round < ${ROUNDS:-5}; round++)); do
    for type in ${TYPES:-bf16}; do
        file=$dir/$layers.$type.gguf
        [ -e "$file" ] || "$emo" export --model "$dir/$layers" --type "$type" --out "$file" --quiet >/dev/null
        ours=$file
        [ "$type" = bf16 ] && ours=$dir/$layers
        for n in ${THREADS:-1 2}; do
            note libemo "$type" "$n" "$("$bench" run "$ours" "$n" bf16)"
            note llama.cpp "$type" "$n" "$("$python" "$here/llama_infer.py" "$file" --threads "$n" 2>/dev/null | tail -1)"
        done
    done
done
echo
sort -k2,3 -k1,1 "$results" | awk '
function median(list, count,    i, j, swap) {
    for (i = 1; i <= count; i++)
        for (j = i + 1; j <= count; j++)
            if (list[j] < list[i]) { swap = list[i]; list[i] = list[j]; list[j] = swap }
    return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}
{ key = $2 " " $3; side[$1] = 1; keys[key] = 1; n[$1, key]++; prompt[$1, key, n[$1, key]] = $4; after[$1, key, n[$1, key]] = $5 }
END {
    for (key in keys) {
        for (s in side) {
            for (i = 1; i <= n[s, key]; i++) { p[i] = prompt[s, key, i]; a[i] = after[s, key, i] }
            mp[s] = median(p, n[s, key]); ma[s] = median(a, n[s, key])
        }
        split(key, k, " ")
        printf "%s, %s threads: prompt %.0f against %.0f tokens/s (%.2fx), after it %.1f against %.1f (%.2fx)\n", k[1], k[2],
            mp["libemo"], mp["llama.cpp"], mp["libemo"] / mp["llama.cpp"], ma["libemo"], ma["llama.cpp"],
            ma["libemo"] / ma["llama.cpp"]
    }
}' | sort
