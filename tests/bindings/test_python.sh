#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The Python package on the shared library of this build: tests/bindings/python with pytest. EMO_GOLDEN_DIR names a
# folder of golden cases for those that want them. usage: test_python.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
root=$source
. "$source/scripts/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
python=$(emo_python 'import sys, pytest; sys.exit(sys.version_info < (3, 9))')
[ -n "$python" ] || { echo "FAILED: no Python 3.9 or later with pytest (scripts/deps.sh test)"; exit 1; }
"$python" -c 'import numpy' 2>/dev/null || echo "numpy is not installed: its tests are left out"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
rc=0
EMO_LIBRARY=$library EMO_PROGRAM=$build/examples/cli/emo PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1 \
    "$python" -m pytest -q -p no:cacheprovider -rs --tb=short "$source/tests/bindings/python" >"$log" 2>&1 || rc=$?
cat "$log"
# As a cmocka program says it, so that each case counts.
passed=$(grep -oE '[0-9]+ passed' "$log" | tail -n 1 | cut -d ' ' -f 1)
failed=$(grep -oE '[0-9]+ (failed|error)' "$log" | cut -d ' ' -f 1 | paste -sd + | sed 's/^$/0/')
echo "[  PASSED  ] ${passed:-0} test(s)."
[ $((failed)) = 0 ] || echo "[  FAILED  ] python: $((failed)) test(s), listed below:"
exit $rc
