#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The gate of instructions (count_instructions.sh, which .ci/run calls for every operator): it passes an operator as it is,
# and fails one that works twice. usage: test_counts.sh SOURCE_DIR BUILD_DIR
set -u
gate=$1/tests/bench/count_instructions.sh
out=$(bash "$gate" "$2" --only norm 2>&1)
rc=$?
echo "$out"
[ $rc = 77 ] && exit 77
[ $rc = 0 ] || exit 1
out=$(bash "$gate" "$2" --only norm --twice norm 2>&1) && { echo "FAILED: twice the work passed the gate"; exit 1; }
echo "$out"
for isa in scalar avx2; do
    grep -q "^$isa" <<<"$(grep "^$isa norm " "$1/tests/bench/instructions.txt")" || continue
    grep -q 'avx2 was not counted' <<<"$out" && [ $isa = avx2 ] && continue
    grep -q "FAILED: $isa norm takes .*+[0-9.]* %" <<<"$out" || { echo "FAILED: nothing is said of $isa"; exit 1; }
done
