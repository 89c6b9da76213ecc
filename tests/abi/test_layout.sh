#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# No public struct has bytes that no field names: a caller's copy would carry garbage there, and a field that takes the
# place later could not be told from it. (The sys/ headers are for back ends built with the library.)
# usage: test_layout.sh SOURCE_DIR
set -eu
cc=${CC:-cc}
probe='struct probe { char a; int b; };'
if printf '%s\n' "$probe" | $cc -Wpadded -Werror -fsyntax-only -x c - 2>/dev/null; then
    echo "this compiler does not see padding"
    exit 77
fi
count=0
for header in "$1"/include/emo/*.h; do
    count=$((count + 1))
    $cc -std=c11 -Wpadded -Werror -I "$1/include" -fsyntax-only -x c "$header" || {
        echo "FAILED: name the padding of the struct above as a reserved field"
        exit 1
    }
done
[ $count -gt 5 ] || { echo "FAILED: found $count headers"; exit 1; }
echo "$count headers: every byte of every struct has a name"
