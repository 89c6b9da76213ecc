#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A program of the first release, built with the headers of then, on the library of today: linked and run.
# usage: test_first.sh SOURCE_DIR BUILD_DIR
set -eu
here=$1/tests/abi/first
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC:-cc} -std=c11 -Wall -Wextra -Werror -I "$here/include" "$here/program.c" -o "$work/program" -L "$build" -lemo -lm
[ "$(readelf -d "$work/program" | sed -n 's/.*NEEDED.*\[\(libemo.*\)\]/\1/p')" = libemo.so.0 ]
LD_LIBRARY_PATH=$build "$work/program" "$work/model"

# The functions that fill in defaults have no more room than those headers give them.
{
    printf '#include <emo/emo.h>\n#include <stdio.h>\n#include <string.h>\n'
    printf 'int main(void) {\n    int bad = 0;\n'
    cat "$here"/include/emo/*.h | sed -nE 's/^EMO_API void (emo_[a-z_]+)_init\(.*/\1/p' | sort | while read -r type; do
        echo "    { struct { $type it; unsigned char behind[64]; } g;"
        echo "      unsigned char full[64]; memset(full, 0x5a, sizeof full); memset(&g, 0x5a, sizeof g); ${type}_init(&g.it);"
        echo "      if (g.it.struct_size != sizeof g.it || memcmp(g.behind, full, sizeof full) != 0)"
        echo "          bad = 1, printf(\"FAILED: ${type}_init\\n\"); }"
    done
    printf '    return bad;\n}\n'
} >"$work/init.c"
[ "$(grep -c 'struct {' "$work/init.c")" -gt 15 ] || { echo "FAILED: found too few functions"; exit 1; }
${CC:-cc} -std=c11 -Wall -Wextra -Werror -I "$here/include" "$work/init.c" -o "$work/init" -L "$build" -lemo
LD_LIBRARY_PATH=$build "$work/init"
