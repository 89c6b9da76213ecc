#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The C# example through Mono says what the C one says; a folder that is not there is an exception with the library's
# words. usage: test_csharp.sh SOURCE_DIR BUILD_DIR
set -eu
for tool in mcs mono; do
    command -v $tool >/dev/null 2>&1 || { echo "$tool is not installed (packages mono-mcs, mono-runtime)"; exit 77; }
done
[ -e "$2/libemo.so.0" ] && [ -x "$2/examples/train_tiny" ] || { echo "no shared library or examples in this build"; exit 77; }
source=$(realpath "$1")
build=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for i in $(seq 12); do echo "{\"text\": \"flour and butter and sugar, knead and bake $i\"}"; done >docs.jsonl
"$build/examples/train_tiny" docs.jsonl model >/dev/null
mcs -warnaserror -out:Generate.exe "$source/examples/csharp/Generate.cs"
export LD_LIBRARY_PATH=$build
mono Generate.exe model "flour and" >csharp
"$build/examples/load_and_generate" model "flour and" >c
cmp csharp c || { echo "FAILED: C# says '$(cat csharp)', C says '$(cat c)'"; exit 1; }
rc=0
mono Generate.exe nowhere "x" >/dev/null 2>err || rc=$?
[ $rc = 1 ] && grep -q nowhere err || { echo "FAILED: a missing folder gives $rc: $(head -n 2 err)"; exit 1; }
echo "C#: $(cat csharp)"
