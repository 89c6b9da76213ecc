#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The CUDA back end on a GPU: builds it with nvcc, runs the tests that run elsewhere on the simulator, the golden cases where
# they are given, the tools of compute-sanitizer, and the benchmarks; one report, unattended, in less than ten minutes.
# usage: scripts/gpu.sh [--golden DIR] [--plugin FILE] [--out FILE]
#   --plugin FILE   a plug-in that is built already, such as the simulator's (then without compute-sanitizer)
# The last line is `N passed, M failed`.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
build=${EMO_BUILD_DIR:-$root/build-gpu}
golden= plugin= out=
usage() { echo "usage: scripts/gpu.sh [--golden DIR] [--plugin FILE] [--out FILE]" >&2; exit 2; }
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --golden) golden=$(realpath "$2") ;;
    --plugin) plugin=$(realpath "$2") ;;
    --out) out=$2 ;;
    *) usage ;;
    esac
    shift 2
done
out=${out:-$build/gpu_report.txt}
mkdir -p "$build" "$(dirname "$out")"
out=$(realpath "$out")
passed=0
failed=0
begin=$SECONDS
exec > >(tee "$out") 2>&1
say() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - begin)); }
finish() {
    printf '\n%d seconds in all\n%d passed, %d failed\n' $((SECONDS - begin)) $passed $failed
    exit $((failed > 0))
}
# try SECONDS NAME COMMAND...: one test.
try() {
    local limit=$1 name=$2 from=$SECONDS code
    shift 2
    timeout "$limit" "$@" >"$build/gpu_$name.log" 2>&1
    code=$?
    if [ $code = 0 ]; then
        passed=$((passed + 1))
        echo "ok      $name ($((SECONDS - from)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED  $name ($((SECONDS - from)) s, code $code)"
        grep -E 'ERROR|FAIL|rror:|=========' "$build/gpu_$name.log" | head -n 12 | sed 's/^/        /'
    fi
}

say "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,compute_cap --format=csv,noheader 2>/dev/null ||
    echo "nvidia-smi says nothing"
git -C "$root" log -1 --format='%h %s' 2>/dev/null

say "build"
options=(-DCMAKE_BUILD_TYPE=Release -DEMO_BUILD_TESTS=ON -DEMO_CUDA_SIM=OFF -DEMO_CUDA_DEVICE_TESTS=ON)
if [ -z "$plugin" ]; then
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
    options+=(-DEMO_BUILD_CUDA=ON "-DEMO_CUDA_ARCHS=${arch:-80;90}")
fi
if ! emo_build "$build" "${options[@]}"; then
    failed=1
    finish
fi
plugin=${plugin:-$build/libemo_cuda.so}
export EMO_CUDA_PLUGIN=$plugin

say "tests on the device"
tests=()
for test in "$build"/tests/test_cuda_*; do
    [ -x "$test" ] && [ -f "$test" ] && tests+=("$test")
done
for test in "${tests[@]}"; do
    try 120 "$(basename "$test")" "$test"
done
if [ -n "$golden" ]; then
    say "golden cases"
    for family in router train infer optim subset; do
        [ -d "$golden/$family" ] && try 60 "golden_$family" "$build/tests/emo_golden" "$golden/$family" "$plugin" cuda
    done
fi

say "the program"
emo=$(emo_program "$build")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
try 60 program bash "$root/tests/e2e/test_cuda_program.sh" "$root" "$build" "$plugin"

if command -v compute-sanitizer >/dev/null 2>&1 && [ -e /dev/nvidia0 ]; then
    say "compute-sanitizer"
    for tool in memcheck racecheck initcheck synccheck; do
        for test in test_cuda_primitives test_cuda_blocks test_cuda_moe; do
            try 45 "${tool}_$test" compute-sanitizer --tool $tool --error-exitcode 99 "$build/tests/$test"
        done
    done
else
    say "compute-sanitizer is not here, or there is no GPU: left out"
fi

say "operators against what bounds them"
tokens=16384
[ -e /dev/nvidia0 ] || tokens=64
try 120 bench_device "$build/tests/bench_device" "$plugin" cuda --tokens $tokens
cat "$build/gpu_bench_device.log"

say "a training step and generation, tokens per second"
if [ -e /dev/nvidia0 ]; then
    config='{"hidden_size": 1024, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_experts": 65, "num_shared_experts": 1, "num_experts_per_tok": 8, "max_position_embeddings": 4096}'
    length=2048
else
    config='{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_experts": 9, "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 256}'
    length=64
fi
echo "$config" >"$work/config.json"
awk 'BEGIN { x = 7; split("river bridge water stone boat oven flour butter sugar bread", w, " ");
    for (i = 0; i < 400; i++) { t = ""; for (j = 0; j < 300; j++) { x = (x * 1103 + 12345) % 65536;
        t = t " " w[int(x / 7) % 10 + 1]; } printf "{\"text\": \"%s.\"}\n", t; } }' >"$work/docs.jsonl"
"$emo" tokenizer train --data "$work/docs.jsonl" --vocab-size 280 --out "$work/tok.json" --quiet >/dev/null
for compute in f32 bf16; do
    try 90 "train_$compute" "$emo" train --config "$work/config.json" --tokenizer "$work/tok.json" \
        --data "$work/docs.jsonl" --pool uniform:8:8 --batch 8 --seq-len $length --steps 6 --out "$work/$compute" \
        --compute $compute --device cuda --backend "$plugin" --quiet
    grep -o '"tokens_per_second": [0-9.e+]*' "$work/$compute/metrics.jsonl" 2>/dev/null | tail -n 1 |
        sed "s/^/training, $compute, /"
done
from=$(date +%s%N)
try 60 generate "$emo" generate --model "$work/bf16" --prompt river --tokens 128 --device cuda --backend "$plugin" --quiet
awk -v ns=$(($(date +%s%N) - from)) 'BEGIN { printf "generation, 128 tokens and loading: %.2f s\n", ns * 1e-9 }'
finish
