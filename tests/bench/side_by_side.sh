#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Training speed, libemo against PyTorch, on the same model and documents (tests/bench/torch_train.py says which), by turns,
# so that all meet the same minutes of a machine with neighbours; eager and compiled, in f32 and bf16.
# usage: side_by_side.sh BUILD_DIR [RESULTS.json]
#   ROUNDS=5 STEPS=3 THREADS="1 2" TYPES="f32 bf16" WAYS="eager compiled" PYTHON=python3
# Status 77 when torch or the program is missing. OMP_* variables reach PyTorch as they are: its default, threads that
# spin, is the fastest on a quiet machine and the slowest beside neighbours (then OMP_WAIT_POLICY=passive). Prints one
# table: tokens a second, medians over the rounds, and peak memory.
set -eu
build=${1:-build}
here=$(cd "$(dirname "$0")" && pwd)
steps=${STEPS:-3}
python=${PYTHON:-python3}
emo=$build/examples/cli/emo
[ -x "$emo" ] || { echo "skipped: no program $emo"; exit 77; }
"$python" -W ignore -c 'import torch' 2>/dev/null || { echo "skipped: $python has no torch"; exit 77; }
# MKL chooses its kernels itself; a setting meant for other libraries or machines must not hold PyTorch back.
unset OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS MKL_NUM_THREADS MKL_CBWR MKL_ENABLE_INSTRUCTIONS OMP_NUM_THREADS
"$python" -W ignore -c 'import torch
info = torch.__config__.show()
blas = [s.strip() for s in info.replace(",", "\n").splitlines() if "BLAS_INFO" in s or "CPU capability" in s]
print("torch", torch.__version__, *blas)'
# Freed memory stays with the process: without this, every large tensor of PyTorch's costs fresh pages.
torch="MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 '$python' -W ignore '$here/torch_train.py' --steps $steps"
sides=()
for type in ${TYPES:-f32 bf16}; do
    for n in ${THREADS:-1 2}; do
        sides+=("$type, $n threads" libemo
            "'$emo' bench --shape small --what train --steps $steps --rounds 1 --threads $n --compute $type --json --quiet")
        for way in ${WAYS:-eager compiled}; do
            sides+=("$type, $n threads" "PyTorch $way" "$torch --threads $n --dtype $type --way $way")
        done
    done
done
exec "$python" -W ignore "$here/by_turns.py" --rounds "${ROUNDS:-5}" ${2:+--json "$2"} "${sides[@]}"
