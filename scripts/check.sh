#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What reads the source without running it: formatting, layers, headers that stand alone, padding of public structs,
# reference pages without warnings, clang-tidy. A tool that is not installed is named and passed over.
# usage: scripts/check.sh [--tidy all|changed|none]
#   changed (default): clang-tidy reads the sources that differ from the commit before; all: every one (minutes)
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
. "$root/scripts/common.sh"
tidy=changed
case ${1-} in
'') ;;
--tidy) tidy=${2-} ;;
*) tidy= ;;
esac
case $tidy in
all | changed | none) ;;
*) echo "usage: scripts/check.sh [--tidy all|changed|none]" >&2 && exit 2 ;;
esac

bad=0
failed() {
    echo "FAILED: $1"
    bad=1
}
have() {
    command -v "$1" >/dev/null 2>&1 && return 0
    echo "$1 is not installed: its check is left out (scripts/deps.sh check installs it)"
    return 1
}

if have clang-format; then
    patterns=('*.c' '*.h' '*.inc' '*.cpp' '*.hpp' '*.cu' '*.cuh')
    git ls-files "${patterns[@]}" | xargs -r clang-format --dry-run --Werror ||
        failed "the format; mend it with: git ls-files$(printf " '%s'" "${patterns[@]}") | xargs clang-format -i"
fi

# What the Python package says of the headers, and its own slips.
python3 bindings/python/generate.py --check || failed "the Python package is behind the headers"
if python3 -m pyflakes --version >/dev/null 2>&1; then
    git ls-files '*.py' | xargs -r python3 -m pyflakes || failed "pyflakes"
fi
# Earlier versions of mypy do not know keywords by TypedDict.
if python3 -c 'import sys, mypy.version as m; sys.exit([int(n) for n in m.__version__.split(".")[:2]] < [1, 5])' 2>/dev/null; then
    (cd bindings/python && python3 -m mypy --strict emo) || failed "mypy"
fi

bash tests/abi/test_layers.sh "$root" || failed "the layers"
bash tests/abi/test_layout.sh "$root"
[ $? = 0 ] || [ $? = 77 ] || failed "the layout of public structs"

# Every header includes what it needs. (The installed ones are also compiled as C++17, by the install test.)
count=0
while IFS= read -r header; do
    case $header in *_body.h) continue ;; esac # the inside of a kernel, included once per instruction set
    printf '#include "%s"\ntypedef int emo_unit_is_not_empty;\n' "$root/$header" |
        cc -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wno-unused-function -Wno-unused-parameter -Werror \
            -Iinclude -Isrc -Iexamples/cli -fsyntax-only -x c - || failed "$header does not compile alone"
    count=$((count + 1))
done < <(git ls-files 'include/*.h' 'src/*.h' 'examples/*.h')
echo "$count headers compile alone"

bash tests/scripts/test_reference.sh "$root"
[ $? = 0 ] || [ $? = 77 ] || failed "the reference pages"

if [ "$tidy" != none ] && have clang-tidy; then
    files=$(git ls-files 'src/*.c' 'examples/*.c')
    if [ "$tidy" = changed ]; then
        base=$(git rev-parse -q --verify HEAD~1) || base=$(git hash-object -t tree /dev/null)
        files=$(comm -12 <(sort <<<"$files") <(git diff --name-only "$base" | sort))
    fi
    mkdir -p build
    # The kernels of a set that this machine's compiler does not build have no entry in the list of commands.
    cmake -S "$root" -B build/check -DEMO_BUILD_TESTS=OFF >build/check.log 2>&1 || { cat build/check.log; failed "cmake"; }
    files=$(for file in $files; do grep -qF "\"$root/$file\"" build/check/compile_commands.json && echo "$file"; done)
    if [ -n "$files" ]; then
        xargs -r -P "$(nproc)" -n 4 clang-tidy -p build/check --quiet --warnings-as-errors='*' <<<"$files" 2>build/tidy.log ||
            failed "clang-tidy"
    fi
    echo "clang-tidy read $(wc -w <<<"$files") files"
fi
[ $bad = 0 ]
