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
