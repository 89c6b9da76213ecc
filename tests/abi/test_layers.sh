#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Dependencies point downward only: every folder of src/ may include the folders it is listed with here (and itself),
# nothing else of ours. docs/architecture.md explains the picture.
# usage: test_layers.sh SOURCE_DIR
set -eu
cd "$1/src"
declare -A may=(
    [base]=""
    [tensor]="base"
    [io]="base tensor"
    [text]="base tensor io"
    [data]="base tensor io text"
    [backend]="base tensor"
    [cpu]="base tensor backend"
    [bench]="base tensor backend cpu"
    [moe]="base tensor io backend"
    [model]="base tensor io text backend moe"
    [infer]="base tensor io text backend moe model"
    [train]="base tensor io text data backend moe model infer"
    [subset]="base tensor io text data backend moe model"
    [analyze]="base tensor io text data backend moe model subset"
    [eval]="base tensor io text data backend moe model infer subset"
    [api]="base tensor io text data backend cpu bench moe model infer train subset analyze eval"
)
bad=0
count=0
while IFS=: read -r file line; do
    folder=${file%%/*}
    target=$(printf '%s\n' "$line" | sed 's/.*"\(.*\)".*/\1/')
    # A name without a folder is a file beside the one that includes it.
    case $target in */*) to=${target%%/*} ;; *) to=$folder ;; esac
    count=$((count + 1))
    [ "$to" = "$folder" ] && continue
    case " ${may[$folder]-?} " in
    *" $to "*) ;;
    *)
        echo "FAILED: src/$file includes \"$target\": src/$folder may include ${may[$folder]:-nothing}"
        bad=1
        ;;
    esac
done < <(grep -rnE '^ *# *include *"' --include='*.[ch]' . | sed -E 's|^\./||; s|:[0-9]+:|:|')
for folder in */; do
    [ -n "${may[${folder%/}]+x}" ] || { echo "FAILED: src/$folder is in no rule of $0"; bad=1; }
done
# The program and the examples stand on the public headers alone.
if grep -rnE '#include *"\.\./|#include *["<](base|tensor|io|model|moe|cpu|api|train|infer)/' "$1/examples"; then
    echo "FAILED: an example reaches into src/"
    bad=1
fi
[ $count -gt 0 ] || { echo "FAILED: found no includes"; bad=1; }
[ $bad = 0 ] || exit 1
echo "$count includes, all downward"
