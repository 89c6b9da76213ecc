#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Compares the ABI of this tree with the baseline of the last release, tests/abi/libemo.abi. Any difference fails.
# usage: scripts/abi.sh [--update]      --update writes the baseline instead (at a release; CHANGELOG.md says what changed)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
baseline=$root/tests/abi/libemo.abi
build=$root/build-abi
for tool in abidw abidiff; do
    command -v $tool >/dev/null 2>&1 || { echo "abi.sh: $tool is missing (package abigail-tools)" >&2; exit 3; }
done
emo_build "$build" -DCMAKE_BUILD_TYPE=Debug -DEMO_BUILD_CLI=OFF -DEMO_BUILD_EXAMPLES=OFF
dump() {
    # Without paths and file names the dump is the same wherever it was made.
    abidw --headers-dir "$root/include" --drop-private-types --no-corpus-path --no-comp-dir-path --no-show-locs \
        --out-file "$1" "$build/libemo.so"
}
case ${1-} in
--update)
    dump "$baseline"
    echo "wrote $baseline"
    ;;
'')
    if [ ! -e "$baseline" ]; then
        echo "no baseline yet: nothing has been released"
        exit 0
    fi
    dump "$build/libemo.abi"
    abidiff "$baseline" "$build/libemo.abi"
    echo "the ABI is that of the baseline"
    ;;
*)
    echo "usage: scripts/abi.sh [--update]" >&2
    exit 2
    ;;
esac
