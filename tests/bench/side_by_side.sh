#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Training speed, libemo against PyTorch, on the same model and documents (tests/bench/torch_train.py says which). The
# two run by turns, so that both meet the same minutes of a machine with neighbours; medians over the rounds count.
# usage: side_by_side.sh BUILD_DIR     (ROUNDS=3 STEPS=5 THREADS="1 2" PYTHON=python3)
# Status 77 when torch or bench_train is missing. OMP_* variables reach PyTorch as they are: its default, threads that
# spin, is the fastest on a quiet machine and the slowest beside neighbours (then OMP_WAIT_POLICY=passive).
set -eu
build=${1:-build}
here=$(cd "$(dirname "$0")" && pwd)
rounds=${ROUNDS:-3}
steps=${STEPS:-5}
threads=${THREADS:-1 2}
python=${PYTHON:-python3}
ours=$build/tests/bench_train
[ -x "$ours" ] || { echo "skipped: no program $ours (build with -DEMO_BUILD_TESTS=ON)"; exit 77; }
"$python" -W ignore -c 'import torch' 2>/dev/null || { echo "skipped: $python has no torch"; exit 77; }
# MKL chooses its kernels itself; a setting meant for other libraries or machines must not hold PyTorch back.
unset OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS MKL_NUM_THREADS MKL_CBWR MKL_ENABLE_INSTRUCTIONS OMP_NUM_THREADS
"$python" -W ignore -c 'import torch
info = torch.__config__.show()
blas = [s.strip() for s in info.replace(",", "\n").splitlines() if "BLAS_INFO" in s or "CPU capability" in s]
print("torch", torch.__version__, *blas)'

results=$(mktemp)
trap 'rm -f "$results"' EXIT
torch_train() {
    # Freed memory stays with the process: without this, every large tensor costs fresh pages.
    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 "$python" -W ignore "$here/torch_train.py" "$@"
}
note() { # side threads line
    echo "$1: $3"
    printf '%s\n' "$3" | sed -E "s|.*: ([0-9]+) tokens/s .* ([0-9.]+) ms of CPU time.*|$1 $2 \1 \2|" >>"$results"
}
for ((round = 0; round < rounds; round++)); do
    for n in $threads; do
        note libemo "$n" "$("$ours" large "$n" "$steps")"
        note torch "$n" "$(torch_train --threads "$n" --steps "$steps")"
    done
done

median() { # side threads column
    awk -v side="$1" -v n="$2" -v c="$3" '$1 == side && $2 == n { print $c }' "$results" | sort -n |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
echo
echo "threads  libemo tokens/s  PyTorch tokens/s  ratio  ratio of CPU time"
for n in $threads; do
    awk -v n="$n" -v a="$(median libemo "$n" 3)" -v b="$(median torch "$n" 3)" -v ca="$(median libemo "$n" 4)" \
        -v cb="$(median torch "$n" 4)" 'BEGIN { printf "%7d %16.0f %17.0f %6.2f %18.2f\n", n, a, b, a / b, cb / ca }'
done
