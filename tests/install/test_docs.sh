#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# docs/tasks, followed to the letter by somebody who has the installed tree and nothing else: a block that names a file
# becomes that file, a block of sh is run. Pages in the order of their README, in one folder.
# usage: test_docs.sh SOURCE_DIR BUILD_DIR      (or the word `installed` for libemo as the system has it)
set -u
source=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$2" != installed ]; then
    [ -e "$2/libemo.so" ] && [ -x "$2/examples/cli/emo" ] || { echo "no shared library or program in this build"; exit 77; }
    build=$(realpath "$2")
    cmake --install "$build" --prefix "$work/prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name emo.pc)")
    LD_LIBRARY_PATH=$(realpath "$PKG_CONFIG_PATH/..")
    PATH=$work/prefix/bin:$PATH
    export PKG_CONFIG_PATH LD_LIBRARY_PATH PATH
fi
mkdir "$work/here"
cd "$work/here" || exit 1
pages=$(grep -oE '\]\([a-z]+\.md\)' "$source/docs/tasks/README.md" | tr -d ']()')
[ "$(wc -w <<<"$pages")" = "$(find "$source/docs/tasks" -name '*.md' ! -name README.md | wc -l)" ] ||
    { echo "FAILED: docs/tasks/README.md does not list every page"; exit 1; }
bad=0
blocks=0
for page in $pages; do
    # Every block to a file of its own: N.LANGUAGE.NAME.
    rm -rf "$work/blocks"
    mkdir "$work/blocks"
    awk -v dir="$work/blocks" '/^```[a-z]/ { n++; file = sprintf("%s/%03d.%s.%s", dir, n, substr($1, 4), $2); inside = 1; next }
        /^```/ { if (!inside) exit 1; inside = 0; next }
        inside { print > file }' "$source/docs/tasks/$page" || { echo "FAILED: $page has a block without language"; bad=1; }
    for block in "$work"/blocks/*; do
        name=${block##*/}
        language=${name#*.}
        language=${language%%.*}
        file=${name#*.*.}
        case $language in
        c | cpp | json)
            [ -n "$file" ] || { echo "FAILED: a block of $page names no file"; bad=1; continue; }
            cp "$block" "$file"
            ;;
        sh)
            bash -eu -o pipefail "$block" >"$work/out" 2>&1 || { echo "FAILED: in $page:"; cat "$block" "$work/out"; bad=1; break 2; }
            sed "s/^/$page: /" "$work/out" | tail -n 3
            ;;
        *) echo "FAILED: $page has a block of $language"; bad=1 ;;
        esac
        blocks=$((blocks + 1))
    done
done
# What is written must also be used: every program of a page was built.
for program in *.c *.cpp; do
    [ -x "${program%.*}" ] || { echo "FAILED: $program is never built"; bad=1; }
done
[ $blocks -gt 15 ] || { echo "FAILED: found $blocks blocks"; bad=1; }
[ $bad = 0 ] && echo "$blocks blocks"
