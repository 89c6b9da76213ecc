#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs everything the project checks, from a clean checkout: the dependencies, a release build with every test (unit,
# gradient, parity, install, ABI), the golden cases where ../shared/golden exists, and the tests again under
# AddressSanitizer + UndefinedBehaviorSanitizer and under ThreadSanitizer.
# The last line is `N passed, M failed`; the exit status is 0 only if M is 0.
# usage: scripts/test.sh [--quick]      (--quick leaves the sanitizers out)
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
. "$root/scripts/common.sh"
quick=0
case ${1-} in
--quick) quick=1 ;;
'') ;;
*) echo "usage: scripts/test.sh [--quick]" >&2 && exit 2 ;;
esac

passed=0
failed=0
started=$(date +%s)
say() { printf '== %s  [%d s]\n' "$*" $(($(date +%s) - started)); }
finish() {
    say "done"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}

# ctest's log, one cmocka program or script after the other, to "passed failed": the cases of a cmocka program count
# one by one, anything else counts once; a program that died counts as a failure however many cases it had passed.
count_cases() {
    awk '/^[0-9]+\/[0-9]+ Testing: / { p = 0; f = 0 }
        /^\[  PASSED  \] [0-9]+ test/ { p = $4 }
        /^\[  FAILED  \] .*[0-9]+ test\(s\), listed below/ { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^test\(s\)/) f = $i }
        /^Test Passed\./ { passed += p > 0 ? p : 1 }
        /^Test (Failed|Timeout|timed out)|^Test not run|^Unable to find executable|^Test.*Exception/ {
            passed += p; failed += f > 0 ? f : 1 }
        END { print passed + 0, failed + 0 }' "$1"
}

# run_ctest DIR SECONDS [ctest options]: the tests of one build, at most SECONDS long. A run that is cut there has
# failed: what did not run has shown nothing.
run_ctest() {
    local dir=$1 seconds=$2 log=$1/Testing/Temporary/LastTest.log rc=0 counts p f
    shift 2
    rm -f "$log" "$log.tmp"
    timeout "$seconds" ctest --test-dir "$dir" -j "$(nproc)" --output-on-failure "$@" || rc=$?
    [ -e "$log" ] || log=$log.tmp
    counts=$([ -e "$log" ] && count_cases "$log" || echo 0 0)
    p=${counts% *}
    f=${counts#* }
    if [ "$rc" = 124 ]; then
        echo "$dir: cut after $seconds s; $((p + f)) cases had finished"
        f=$((f + 1))
    elif [ "$rc" != 0 ] && [ "$f" = 0 ]; then
        f=1
    fi
    passed=$((passed + p))
    failed=$((failed + f))
}

say "dependencies"
if ! scripts/deps.sh test; then
    failed=1
    finish
fi
scripts/deps.sh extra >/dev/null 2>&1 || echo "some tests will be left out: $(scripts/deps.sh extra --dry-run || true)"

say "release build"
if ! emo_build build -DCMAKE_BUILD_TYPE=Release -DEMO_BUILD_TESTS=ON -DEMO_WERROR=ON; then
    failed=1
    finish
fi
say "tests"
if [ -d ../shared/golden ]; then # the cases that go through the Python package
    EMO_GOLDEN_DIR=$(cd ../shared/golden && pwd)
    export EMO_GOLDEN_DIR
fi
run_ctest build 600

# golden NAME ARGUMENT...: the golden program's cases count as tests.
golden() {
    local log=build/$1.log last
    shift
    last=$(scripts/golden.sh "$@" | tee "$log" | tail -n 1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        grep -iE '^(fail|FAIL)| FAIL' "$log" || true
        echo "$last"
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
    else
        echo "the golden program did not finish: $last"
        failed=$((failed + 1))
    fi
}
if [ -d ../shared/golden ]; then
    say "golden cases"
    golden golden ../shared/golden
    if [ -e build/libemo_cuda_sim.so ]; then
        say "golden cases through the CUDA back end on the simulator"
        golden golden_cuda ../shared/golden build/libemo_cuda_sim.so cuda
    fi
fi

if [ $quick = 0 ]; then
    export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    say "build with AddressSanitizer and UndefinedBehaviorSanitizer"
    if emo_build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEMO_BUILD_TESTS=ON -DEMO_BUILD_SHARED=OFF \
        -DEMO_SANITIZE=address,undefined; then
        say "tests under AddressSanitizer and UndefinedBehaviorSanitizer"
        # Whole models on the simulated device take minutes here: a step and a cache of experts run (cmake/cuda.cmake), the
        # kernels run in the parity tests, and the hooked build of the plug-in checks every access of the same programs.
        run_ctest build-asan 600 -LE script \
            -E "^test_cuda_(model|memory|replay|expert_cache)$|^test_quantised_perplexity$"
    else
        failed=$((failed + 1))
    fi
    export TSAN_OPTIONS=halt_on_error=1
    say "build with ThreadSanitizer"
    if emo_build build-tsan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEMO_BUILD_TESTS=ON -DEMO_BUILD_SHARED=OFF \
        -DEMO_SANITIZE=thread; then
        say "tests under ThreadSanitizer"
        # Finite differences and the loops of failures repeat what other tests run on several threads already, and
        # parsers, quantisers and the choice of who goes together run on one; a thousand lives of every object are counted
        # without it.
        run_ctest build-tsan 400 -LE script \
            -E "_grad|test_fail_|test_bad_|test_gguf|test_quantised_perplexity|test_serving_groups|test_hooks"
    else
        failed=$((failed + 1))
    fi
fi
finish
