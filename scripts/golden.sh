#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks every golden case below a folder: one line a case with its largest error and tolerance, `N passed, M failed`
# last. With PLUGIN and DEVICE, models and operators run there. usage: scripts/golden.sh DIR [PLUGIN DEVICE]
set -eu
if { [ $# != 1 ] && [ $# != 3 ]; } || [ ! -d "$1" ]; then
    echo "usage: scripts/golden.sh DIR [PLUGIN DEVICE]    (a folder of golden cases)" >&2
    exit 2
fi
cases=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
build=${EMO_BUILD_DIR:-$root/build}
. "$root/scripts/common.sh"

"$root/scripts/deps.sh" test
emo_build "$build" -DCMAKE_BUILD_TYPE=Release -DEMO_BUILD_TESTS=ON >&2
exec "$build/tests/emo_golden" "$cases" ${2+"$(realpath "$2")" "$3"}
