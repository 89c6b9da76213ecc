#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What quantising costs a trained model: perplexity on a text, by type, in f32 and (weights as whole numbers times
# activations of eight bits, where the processor can) in bf16.
# usage: quantised_perplexity.sh EMO_PROGRAM MODEL DATA [TYPE...]     (THREADS=1; types: q8_0 q4_0 q4_k)
# Status 3 when q8_0 is more than 0.1 % from f32 or q4_k more than 2 %.
set -eu
emo=${1:?usage: quantised_perplexity.sh EMO_PROGRAM MODEL DATA [TYPE...]}
model=${2:?usage: quantised_perplexity.sh EMO_PROGRAM MODEL DATA [TYPE...]}
data=${3:?usage: quantised_perplexity.sh EMO_PROGRAM MODEL DATA [TYPE...]}
shift 3
[ $# -gt 0 ] || set -- q8_0 q4_0 q4_k
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number() { grep -o "\"$1\": [^,}]*" "$2" | head -n 1 | sed 's/.*: //'; }
# perplexity MODEL COMPUTE
perplexity() {
    "$emo" eval --model "$1" --data "$data" --compute "$2" --threads "${THREADS:-1}" --json --quiet >"$work/eval"
    number perplexity "$work/eval"
}
exact=$(perplexity "$model" f32)
printf '%-5s %12s %10s %14s %10s %14s %10s\n' type bytes rmse/rms 'in f32' change 'in bf16' change
printf '%-5s %12s %10s %14.5f\n' f32 - - "$exact"
bad=0
for type; do
    "$emo" quantize --model "$model" --type "$type" --out "$work/model.gguf" --json --quiet >"$work/made"
    a=$(perplexity "$work/model.gguf" f32)
    b=$(perplexity "$work/model.gguf" bf16)
    case $type in q8_0) bound=0.1 ;; q4_k) bound=2 ;; *) bound=1e9 ;; esac
    awk -v type="$type" -v bytes="$(number bytes "$work/made")" -v error="$(number relative "$work/made")" -v e="$exact" \
        -v a="$a" -v b="$b" -v bound="$bound" 'BEGIN {
            x = 100 * (a / e - 1); y = 100 * (b / e - 1);
            printf "%-5s %12d %10.5f %14.5f %+9.3f%% %14.5f %+9.3f%%\n", type, bytes, error, a, x, b, y;
            exit !(x <= bound && -x <= bound && y <= bound && -y <= bound) }' || bad=3
done
exit $bad
