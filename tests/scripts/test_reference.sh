#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The reference pages from the public headers, by Doxygen: its warnings are errors, and no function of the headers for
# users, no struct and no enum is without a description. usage: test_reference.sh SOURCE_DIR [BUILD_DIR]
set -eu
command -v doxygen >/dev/null 2>&1 || { echo "doxygen is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$1"
{
    cat docs/Doxyfile
    echo "OUTPUT_DIRECTORY = $work"
} >"$work/Doxyfile"
doxygen "$work/Doxyfile" >"$work/log" 2>&1 || { cat "$work/log"; echo "FAILED: the reference pages"; exit 1; }
[ "$(find "$work/html" -name '*.html' | wc -l)" -gt 30 ] || { echo "FAILED: hardly any pages"; exit 1; }
# With EXTRACT_ALL what has no description is no warning: once more without it, for the names that matter.
{
    cat docs/Doxyfile
    echo "OUTPUT_DIRECTORY = $work"
    echo 'EXTRACT_ALL = NO'
    echo 'WARN_AS_ERROR = NO'
    echo 'GENERATE_HTML = NO'
    echo 'GENERATE_XML = YES'
} >"$work/Doxyfile"
doxygen "$work/Doxyfile" >"$work/log" 2>&1 || true
grep -q 'is not documented' "$work/log" || { echo "FAILED: nothing was looked at"; exit 1; }
bare=$(grep 'is not documented' "$work/log" | grep -E '\(function\)|Compound' | grep -v '/include/emo/sys/' || true)
[ -z "$bare" ] || { printf '%s\n' "$bare"; echo "FAILED: functions or structs without a description"; exit 1; }
echo "the reference pages: no warnings; functions and structs are described"
