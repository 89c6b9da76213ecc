#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_null_covers.sh SOURCE BUILD: every function the library exports is named in test_bad_null*.c.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_library "$2"
missing=0
for name in $(nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | grep '^emo_' | sort -u); do
  if ! grep -q "\\b$name\\b" "$1"/tests/bad/test_bad_null*.c; then
    echo "$name is not tried with NULL in tests/bad/test_bad_null*.c"
    missing=1
  fi
done
exit $missing
