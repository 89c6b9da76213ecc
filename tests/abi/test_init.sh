#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The INIT macros open up in the caller's code, so they must be clean under a strict caller's warnings, in C and in C++,
# and hold the size of their struct. usage: test_init.sh SOURCE_DIR
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
include=$1/include
count=0
{
    echo '#include <emo/emo.h>'
    (cd "$include" && find emo -name '*.h' | sort | sed 's/.*/#include <&>/')
    echo 'int main(void) {'
    echo '    int bad = 0;'
    for name in $(grep -rhoE 'define EMO_[A-Z_]+_INIT\b' "$include" | awk '{print $2}' | sort -u); do
        type=$(grep -rhA3 "define $name\\b" "$include" | grep -oE 'sizeof\(emo_[a-z_]+' | head -n 1 | sed 's/.*(//')
        [ -n "$type" ] || continue # emo_error has no size field
        echo "    { $type it = $name; bad += it.struct_size != sizeof it; }"
    done
    echo '    return bad;'
    echo '}'
} >"$work/init.c"
count=$(grep -c struct_size "$work/init.c")
[ "$count" -gt 10 ] || { echo "FAILED: found $count INIT macros"; exit 1; }
strict="-pedantic -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Werror"
${CC:-cc} -std=c11 $strict -I "$include" "$work/init.c" -o "$work/c" || { echo "FAILED: C11"; exit 1; }
${CXX:-c++} -std=c++17 $strict -Wold-style-cast -x c++ -I "$include" "$work/init.c" -o "$work/cpp" ||
    { echo "FAILED: C++17"; exit 1; }
"$work/c" && "$work/cpp" || { echo "FAILED: a struct_size is not the size of its struct"; exit 1; }
echo "$count INIT macros, in C11 and in C++17"
