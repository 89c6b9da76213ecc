# SPDX-License-Identifier: Apache-2.0
# What scripts that run the emo program share; sourced by bash, after BUILD was set. The output of a
# command is in the files out and err of the current folder.
EMO=$(realpath "$BUILD/examples/cli/emo" 2>/dev/null)
[ -x "$EMO" ] || exit 77
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# must COMMAND...: ends with 0; its output is in out and err.
must() {
    "$@" >out 2>err </dev/null || fail "exit code $? from: ${*/#$EMO/emo} ($(head -n 2 err))"
}

# ends CODE WORDS COMMAND...: ends with the code, and says the words (a regular expression) on standard error.
ends() {
    local code=$1 words=$2
    shift 2
    "$@" >out 2>err </dev/null
    local got=$?
    [ $got = "$code" ] || fail "exit code $got, not $code, from: ${*/#$EMO/emo} ($(head -n 1 err))"
    grep -Eq -- "$words" err || fail "no /$words/ on standard error of: ${*/#$EMO/emo} ($(head -n 1 err))"
}

# number KEY [FILE]: the first value with this key in a JSON text (out).
number() {
    grep -o "\"$1\": [^,}]*" "${2:-out}" | head -n 1 | sed 's/.*: //'
}
