#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Compares the ABI of the public headers with what is on record: functions, their types and every struct they reach in
# tests/abi/libemo.abi (abidw, abidiff, no suppressions), the values of all constants in tests/abi/constants.txt. Any
# difference fails, additions too: whoever makes one runs `scripts/abi.sh --update` and says so in CHANGELOG.md, in the
# same commit; a commit that changes the record without CHANGELOG.md fails as well.
# The dump is of a library made from the declarations alone. In that of the real one the structs behind the handles would
# be part of it, which are nobody's business; that the real one exports just these functions is for test_symbols.sh.
# usage: scripts/abi.sh [--update]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
for tool in abidw abidiff; do
    command -v $tool >/dev/null 2>&1 || { echo "abi.sh: $tool is missing (package abigail-tools)" >&2; exit 3; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc}
headers=$(cd "$root/include" && find emo -name '*.h' | sort)

# Declarations become definitions that trap; their names stand in parentheses because some are macros as well.
{
    printf '#include <%s>\n' $headers
    (cd "$root/include" && cat $headers) | sed -E 's://.*$::' | tr '\n' ' ' |
        sed -E 's:/\*([^*]|\*+[^*/])*\*+/: :g' | grep -oE 'EMO_API [^;{]*\([^;{]*\);' |
        sed -E 's/EMO_API|EMO_MUST_CHECK//g; s/(emo_[a-z0-9_]+)\(/(\1)(/; s/;$/ { __builtin_trap(); }/'
} >"$work/stub.c"
[ "$(grep -c __builtin_trap "$work/stub.c")" -gt 150 ] || { echo "FAILED: found too few functions"; exit 1; }
major=$(sed -n 's/^#define EMO_VERSION_MAJOR //p' "$root/include/emo/version.h")
(cd "$work" && $cc -std=c11 -g -fPIC -shared -fvisibility=hidden -I "$root/include" -Wl,-soname,"libemo.so.$major" \
    -Wl,--version-script="$root/cmake/libemo.map" stub.c -o libemo.so)
# Without paths and file names the dump is the same wherever it was made.
abidw --no-corpus-path --no-comp-dir-path --no-show-locs --out-file "$work/libemo.abi" "$work/libemo.so"

# Constants are int32_t for C, so that no function's type reaches them.
{
    printf '#include <%s>\n' $headers
    printf '#include <inttypes.h>\n#include <stdio.h>\nint main(void) {\n'
    {
        (cd "$root/include" && cat $headers) | tr '\n' ' ' | sed -E 's:/\*([^*]|\*+[^*/])*\*+/: :g' |
            grep -oE 'enum *\{[^}]*\}' | grep -oE '\bEMO_[A-Z0-9_]+ *=' | tr -d ' ='
        sed -nE 's/^ *X\((EMO_[A-Z_]+),.*/\1/p' "$root/include/emo/base.h"
    } | LC_ALL=C sort -u | sed 's/.*/printf("%s %" PRId64 "\\n", "&", (int64_t)&);/'
    printf 'return 0; }\n'
} >"$work/constants.c"
$cc -std=c11 -I "$root/include" "$work/constants.c" -o "$work/constants"
"$work/constants" >"$work/constants.txt"
[ "$(wc -l <"$work/constants.txt")" -gt 60 ] || { echo "FAILED: found too few constants"; exit 1; }

record=$root/tests/abi
case ${1-} in
--update)
    cp "$work/libemo.abi" "$work/constants.txt" "$record/"
    echo "wrote $record/libemo.abi and constants.txt; say in CHANGELOG.md what changed"
    if command -v python3 >/dev/null 2>&1; then
        python3 "$root/bindings/python/generate.py"
    fi
    ;;
'')
    bad=0
    if grep -q "architecture='elf-amd-x86_64'" "$work/libemo.abi"; then
        abidiff "$record/libemo.abi" "$work/libemo.abi" || bad=1
    else
        echo "another machine than that of the record: only the constants are compared"
    fi
    diff -u "$record/constants.txt" "$work/constants.txt" || bad=1
    [ $bad = 0 ] || echo "FAILED: the ABI is not the one on record; if it is meant: scripts/abi.sh --update, and CHANGELOG.md"
    # What this commit (with what is not committed yet) does to the record must be in the changelog.
    if base=$(git -C "$root" rev-parse -q --verify HEAD~1 2>/dev/null) &&
        git -C "$root" cat-file -e "$base:tests/abi/constants.txt" 2>/dev/null &&
        ! git -C "$root" diff --quiet "$base" -- tests/abi/libemo.abi tests/abi/constants.txt &&
        git -C "$root" diff --quiet "$base" -- CHANGELOG.md; then
        echo "FAILED: the record of the ABI changed, and CHANGELOG.md does not say so"
        bad=1
    fi
    [ $bad = 0 ] || exit 1
    echo "the ABI is that on record"
    ;;
*)
    echo "usage: scripts/abi.sh [--update]" >&2
    exit 2
    ;;
esac
