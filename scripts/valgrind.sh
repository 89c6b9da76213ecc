#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Unit tests under valgrind's memcheck: reads of what was never written, which the sanitizers do not see. Every error and
# every block that is lost counts. valgrind hides the instruction sets it does not know (AVX-512) from the program, and
# the library takes the next lower one; programs that time things, measure resident memory or fail calls on purpose
# thousands of times are left out: they would take hours, or measure valgrind. Without valgrind there is nothing to do.
# usage: scripts/valgrind.sh [PROGRAM...]      (names of test programs; without: all unit tests and bad input)
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
. "$root/scripts/common.sh"
if ! command -v valgrind >/dev/null 2>&1; then
    echo "valgrind is not here: skipped"
    exit 0
fi
emo_build build -DCMAKE_BUILD_TYPE=Release -DEMO_BUILD_TESTS=ON -DEMO_WERROR=ON || exit 1
if [ $# = 0 ]; then
    left_out='test_real_size|test_fail_|test_resume|test_hooks|test_cancel|_grad$'
    for source in tests/unit/*/test_*.c tests/bad/test_*.c tests/bad/*/test_*.c; do
        name=$(basename "$source" .c)
        [[ $name =~ $left_out ]] || set -- "$@" "$name"
    done
fi
passed=0
failed=0
for name; do
    log=build/valgrind-$name.log
    begin=$(date +%s)
    if [ ! -x "build/tests/$name" ]; then
        echo "$name: there is no such test program"
        failed=$((failed + 1))
        continue
    fi
    # Without valgrind-readable line numbers the first lines of a stack are still the functions' names.
    valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect --fair-sched=yes \
        --errors-for-leak-kinds=definite,indirect --num-callers=20 "build/tests/$name" >"$log" 2>&1
    code=$?
    case $code in
    0 | 77)
        passed=$((passed + 1))
        echo "$name: clean, $(($(date +%s) - begin)) s"
        ;;
    *)
        failed=$((failed + 1))
        echo "$name: $([ $code = 99 ] && echo 'valgrind found errors' || echo "ended with $code"), see $log"
        grep -m 12 '^==' "$log"
        ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
