#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The plug-in that nvcc built, on a machine without a GPU: it loads, says what is missing, and exports one symbol.
# usage: test_cuda_absent.sh SOURCE_DIR BUILD_DIR
BUILD=$2
PLUGIN=$(realpath "$2/libemo_cuda.so" 2>/dev/null)
[ -e "$PLUGIN" ] && [ ! -e /dev/nvidia0 ] || exit 77
. "$(dirname "$0")/functions.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
echo '{"text": "river"}' >docs.jsonl
ends 4 "back end 'cuda': (there is no NVIDIA driver|the NVIDIA driver)" "$EMO" eval --model nowhere --data docs.jsonl \
    --device cuda --backend "$PLUGIN"
symbols=$(nm -D --defined-only "$PLUGIN" | awk '{ print $3 }' | grep -v '^$')
[ "$symbols" = emo_backend_plugin ] || fail "exported: $symbols"
ldd "$PLUGIN" | grep -Eq 'libcuda|libcublas|libcudart' && fail "it needs $(ldd "$PLUGIN" | grep -E 'libcuda|libcublas')"
exit $((failures > 0))
