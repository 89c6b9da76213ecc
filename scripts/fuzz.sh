#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Searches for bytes that make the library crash, read beyond its memory, hang or break a promise: builds tests/fuzz with
# clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs each target for a while, from the seeds in
# tests/fuzz/corpus. What it finds lies in build-fuzz/found; what it learns, in build-fuzz/corpus.
# usage: scripts/fuzz.sh [--seconds N] [TARGET...]      (60 seconds for each of all targets)
# exit status: 0 nothing found; 1 something found; 2 wrong usage; 77 there is no clang with libFuzzer
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
seconds=60
targets=
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        seconds=${2-}
        shift
        ;;
    -h | --help) sed -n '3,8s/^# //p' "$0" && exit 0 ;;
    -*) echo "usage: scripts/fuzz.sh [--seconds N] [TARGET...]" >&2 && exit 2 ;;
    *) targets="$targets $1" ;;
    esac
    shift
done
case $seconds in
'' | *[!0-9]*) echo "fuzz.sh: --seconds takes a whole number, not '$seconds'" >&2 && exit 2 ;;
esac
[ -n "$targets" ] || targets=$(ls tests/fuzz/corpus)
for target in $targets; do
    [ -d "tests/fuzz/corpus/$target" ] || { echo "fuzz.sh: there is no target '$target' (see tests/fuzz/corpus)" >&2 && exit 2; }
done

probe=$(mktemp -d) || exit 1
trap 'rm -rf "$probe"' EXIT
echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return n > 0 && d == 0; }' >"$probe/probe.c"
if ! clang -fsanitize=fuzzer,address,undefined "$probe/probe.c" -o "$probe/probe" 2>"$probe/err"; then
    echo "fuzz.sh: there is no clang with libFuzzer here; nothing was searched ($(head -n 1 "$probe/err"))"
    echo "The seeds are replayed without it: ctest --test-dir build -R '^fuzz_'"
    exit 77
fi

log=build-fuzz/build.log
mkdir -p build-fuzz
if ! cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEMO_BUILD_TESTS=ON \
    -DEMO_FUZZ=ON -DEMO_BUILD_SHARED=OFF -DEMO_BUILD_CLI=OFF -DEMO_BUILD_EXAMPLES=OFF \
    -DEMO_SANITIZE=address,undefined,fuzzer-no-link >"$log" 2>&1 ||
    ! cmake --build build-fuzz --parallel "$(nproc)" --target emo_fuzz >>"$log" 2>&1; then
    echo "fuzz.sh: building failed:"
    grep -E 'error|undefined' "$log" | head -n 20
    exit 1
fi

export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
found=0
for target in $targets; do
    mkdir -p "build-fuzz/corpus/$target" build-fuzz/found
    log=build-fuzz/$target.log
    if build-fuzz/tests/emo_fuzz "$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=16384 \
        -print_final_stats=1 -artifact_prefix="build-fuzz/found/$target-" \
        "build-fuzz/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        echo "$target: nothing in $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs," \
            "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | sed 's/cov: //') edges"
    else
        found=1
        echo "$target: FOUND something; the end of $log:"
        tail -n 30 "$log"
    fi
done
exit $found
