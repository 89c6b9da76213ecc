#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Instructions of each operator (tests/bench/bench_counts.c) against what is on record in instructions.txt: a gate that
# sees a slower kernel on a machine whose clock says nothing. callgrind counts the scalar and AVX2 kernels, which is what
# it knows; with --perf, and where the system lets perf count, the levels that the processor has.
# usage: count_instructions.sh BUILD_DIR [--update] [--only NAME] [--twice NAME] [--perf]
#   --only NAME   one operator        --twice NAME  one operator works twice: shows that the gate sees it
# Status 1 when an operator takes more than 2 % above its record, or more than 2 % below, for then the record is behind;
# 77 when valgrind is missing or compiler, C library or build are not those of the record.
# Why 2 %: the count of a build is the same at every run; between machines the C library chooses other copies of memcpy and
# of exp (under 1 % of any operator here), while a kernel that lost something loses at least a few of its hundred.
set -eu
build=${1:?usage: count_instructions.sh BUILD_DIR [--update] [--only NAME] [--twice NAME] [--perf]}
shift
here=$(cd "$(dirname "$0")" && pwd)
record=$here/instructions.txt
program=$build/tests/bench_counts
tolerance=2
update=0 perf=0 only= arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --update) update=1 ;;
    --perf) perf=1 ;;
    --only | --twice)
        [ $# -gt 1 ] || { echo "$1 needs a name" >&2; exit 2; }
        arguments+=("$1" "$2")
        [ "$1" = --twice ] || only=$2
        shift
        ;;
    *) echo "count_instructions.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
skip() {
    echo "skipped: $*"
    exit 77
}
[ -x "$program" ] || skip "no program $program (build with -DEMO_BUILD_TESTS=ON)"
cache=$build/CMakeCache.txt
grep -q '^CMAKE_BUILD_TYPE:STRING=Release$' "$cache" && grep -q '^EMO_SANITIZE:STRING=$' "$cache" ||
    skip "$build is no release build"
cc=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$cache")
compiler=$("$cc" --version | head -n 1)
compiler="${compiler#* }, $(uname -m), $(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'another C library')"
if [ $update = 0 ] && [ $perf = 0 ]; then
    [ -e "$record" ] || skip "there is no record; make one with --update"
    holds=$(sed -n 's/^# for: //p' "$record")
    [ "$holds" = "$compiler" ] || skip "the record holds for '$holds', this is '$compiler'"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# by_callgrind ISA: lines "ISA NAME INSTRUCTIONS"; callgrind writes a file at each return of count_this().
by_callgrind() {
    local isa=$1 n=0 name rc=0
    rm -f "$work"/out*
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect=count_this --dump-after=count_this \
        --callgrind-out-file="$work/out" "$program" "$isa" ${arguments[@]+"${arguments[@]}"} >"$work/names" \
        2>"$work/log" || rc=$?
    [ $rc = 77 ] && return
    [ $rc = 0 ] || { echo "bench_counts $isa failed under valgrind:" >&2; tail -n 5 "$work/log" >&2; return 1; }
    while read -r name; do
        n=$((n + 1))
        echo "$isa $name $(sed -n 's/^\(totals\|summary\): //p' "$work/out.$n" | head -n 1)"
    done <"$work/names"
}

# by_perf ISA: the same from the processor's counter; what 20 calls take over what 10 do, so that the start is left out.
by_perf() {
    local isa=$1 name calls counted=()
    "$program" "$isa" ${arguments[@]+"${arguments[@]}"} >"$work/names" 2>/dev/null || return 0
    while read -r name; do
        counted=()
        for calls in 20 10; do
            perf stat -x, -e instructions:u -o "$work/perf" "$program" "$isa" --only "$name" --calls $calls >/dev/null
            counted+=("$(sed -n 's/,.*instructions.*//p' "$work/perf")")
        done
        echo "$isa $name $(((counted[0] - counted[1]) / 10))"
    done <"$work/names"
}

if [ $perf = 1 ]; then
    command -v perf >/dev/null 2>&1 || skip "no perf"
    perf stat -x, -e instructions:u -o "$work/perf" true 2>/dev/null && grep -qE '^[0-9]+,' "$work/perf" ||
        skip "the system does not let perf count instructions"
    for isa in scalar neon avx2 avx512 amx; do
        by_perf $isa
    done
    exit 0
fi
command -v valgrind >/dev/null 2>&1 || skip "no valgrind"
for isa in scalar avx2; do
    by_callgrind $isa
done >"$work/counts"
[ -s "$work/counts" ] || { echo "FAILED: nothing was counted"; exit 1; }
if [ $update = 1 ]; then
    [ -z "$only" ] && [ ${#arguments[@]} = 0 ] || { echo "--update takes all operators as they are" >&2; exit 2; }
    {
        echo "# Instructions of a call; written by tests/bench/count_instructions.sh BUILD_DIR --update"
        echo "# for: $compiler"
        cat "$work/counts"
    } >"$record"
    echo "wrote $record"
    exit 0
fi
awk -v tolerance=$tolerance -v only="$only" '
    FNR == NR { if ($1 != "#") was[$1 " " $2] = $3; next }
    {
        key = $1 " " $2; seen[key] = 1; n++
        if (!(key in was)) { printf "FAILED: %s is not on record; --update\n", key; bad = 1; next }
        change = 100 * ($3 / was[key] - 1)
        if (change > tolerance) {
            printf "FAILED: %s takes %d instructions, %+.1f %% of the %d on record\n", key, $3, change, was[key]; bad = 1
        } else if (change < -tolerance) {
            printf "FAILED: %s takes %d instructions, %+.1f %% of the %d on record: write it down with --update\n",
                key, $3, change, was[key]; bad = 1
        }
    }
    END {
        for (key in was) if (!(key in seen) && (only == "" || key ~ " " only "$")) {
            if (key ~ /^avx2 /) { left = 1; continue }
            printf "FAILED: %s is on record and was not counted\n", key; bad = 1
        }
        if (left) print "avx2 was not counted: the processor has none"
        if (!bad) printf "%d operators within %d %% of the record\n", n, tolerance
        exit bad
    }' "$record" "$work/counts"
