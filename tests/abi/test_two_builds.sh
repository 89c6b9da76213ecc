#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two builds of the library in one process do not clash: another version is linked from the same objects, a program linked
# to the first opens it, and not one of its calls goes to the other (a host may bring a libemo of its own, and so may an
# extension of the host). usage: test_two_builds.sh SOURCE_DIR BUILD_DIR
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$1/include" "$work/include"
sed -i 's/^#define EMO_VERSION_\(MAJOR\|MINOR\|PATCH\) .*/#define EMO_VERSION_\1 9/; s/^\(#define EMO_VERSION_STRING\) .*/\1 "9.9.9"/' \
    "$work/include/emo/version.h"
cc=${CC:-cc}
cp "$build/libemo.a" "$work/other.a"
$cc -std=c11 -O1 -fPIC -fvisibility=hidden -DEMO_BUILD -I "$work/include" -I "$1/src" -c "$1/src/api/version.c" -o "$work/version.c.o"
ar r "$work/other.a" "$work/version.c.o" 2>/dev/null
options=$(grep -oE -- '-Wl,(-B[a-z-]*|-z,[a-z]*)' "$1/cmake/library.cmake" | sort -u | tr '\n' ' ')
$cc -shared -o "$work/libemo.so.0" -Wl,--whole-archive "$work/other.a" -Wl,--no-whole-archive $options \
    -Wl,-soname,libemo.so.0 -Wl,--version-script="$1/cmake/libemo.map" $(pkg-config --libs libpcre2-8 zlib libutf8proc) -lm -lpthread -ldl
$cc -std=c11 -Wall -Wextra -Werror -I "$1/include" "$1/tests/abi/two_builds.c" -o "$work/two" -L "$build" -lemo -lpthread -ldl
LD_LIBRARY_PATH=$build "$work/two" "$work/libemo.so.0" 9.9.9
# No call of the library goes through a symbol that somebody else could take: every emo_* it uses is its own.
if objdump -R "$build/libemo.so" | grep -E ' emo_[a-z]'; then
    echo "FAILED: these calls of the library could land in another build"
    exit 1
fi
