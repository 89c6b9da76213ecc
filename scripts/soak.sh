#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The long forms of the tests of reliability, for a night or before a release; scripts/test.sh runs their quick forms.
#   kills     training is killed at random moments, KILLS times (100), and at every change of the file system
#   failures  every allocation and every call to the system of every stage fails, none left out
#   cycles    objects of every kind are made, used and released, ten times as often
#   valgrind  unit tests under memcheck (scripts/valgrind.sh)
# The figures of the last run stand in docs/reliability.md. The last line is `N passed, M failed`.
# usage: scripts/soak.sh [kills] [failures] [cycles] [valgrind]      (without words: all of them)
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
. "$root/scripts/common.sh"
[ $# -gt 0 ] || set -- kills failures cycles valgrind
passed=0
failed=0
export EMO_SOAK=1

# part NAME COMMAND...: runs it, says how long it took, and shows what it printed about itself.
part() {
    local name=$1 log=build/soak-$1.log begin
    shift
    begin=$(date +%s)
    echo "== $name"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        grep -v '^\[\|^$\|^Test' "$log" | tail -n 40
        echo "   $(($(date +%s) - begin)) s"
    else
        failed=$((failed + 1))
        grep -n 'FAIL\|ERROR\|rror:' "$log" | head -n 20
        tail -n 5 "$log"
        echo "   FAILED after $(($(date +%s) - begin)) s; all of it is in $log"
    fi
}

emo_build build -DCMAKE_BUILD_TYPE=Release -DEMO_BUILD_TESTS=ON -DEMO_WERROR=ON || exit 1
for word; do
    case $word in
    kills)
        part kills-random bash tests/e2e/test_killed.sh . build "${KILLS:-100}"
        part kills-every-change build/tests/test_fail_killed
        ;;
    failures)
        part failures-memory build/tests/test_fail_alloc
        part failures-system build/tests/test_fail_system
        ;;
    cycles) part cycles build/tests/test_hooks ;;
    valgrind) part valgrind scripts/valgrind.sh ;;
    *) echo "usage: scripts/soak.sh [kills] [failures] [cycles] [valgrind]" >&2 && exit 2 ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
