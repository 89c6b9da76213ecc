#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the built library shows and wants: only emo_* is exported, nothing it calls ends the process, writes to the
# terminal, reads the environment or the locale, it has no writable global, and it is not too large.
# usage: test_symbols.sh SOURCE_DIR BUILD_DIR
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
so=$library
archive=$build/libemo.a
bad=0
complain() {
    echo "FAILED: $1"
    printf '%s\n' "$2" | head -n 20 | sed 's/^/    /'
    bad=1
}

exported=$(nm -D --defined-only "$so" | awk '{print $3}' | sed 's/@.*//')
printf '%s\n' "$exported" | grep -q '^emo_runtime_create$' || complain "emo_runtime_create is not exported" "$exported"
wrong=$(printf '%s\n' "$exported" | grep -vE '^(emo_[a-z0-9]|EMO_[0-9]+$)' || true)
[ -z "$wrong" ] || complain "exported, but not emo_*" "$wrong"
wrong=$(printf '%s\n' "$exported" | grep '^emo__' || true)
[ -z "$wrong" ] || complain "internal names are exported" "$wrong"

# Every public function of the headers is there, and nothing is exported that no header declares.
declared=$(find "$1/include/emo" -name '*.h' -exec cat {} + | tr '\n' ' ' |
    grep -oE 'EMO_API [^;{]*' | grep -oE '\bemo_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u)
wrong=$(comm -13 <(printf '%s\n' "$declared") <(printf '%s\n' "$exported" | grep '^emo_' | sort -u))
[ -z "$wrong" ] || complain "exported, but in no public header" "$wrong"

wanted=$(nm -D --undefined-only "$so" | awk '{print $NF}' | sed 's/@.*//' | sort -u)
forbidden='abort|exit|_exit|_Exit|quick_exit|atexit|on_exit|__assert_fail|__assert|assert|raise|kill|signal|sigaction'
forbidden="$forbidden|sigprocmask|fork|vfork|system|popen|printf|__printf_chk|vprintf|__vprintf_chk|puts|putchar|perror"
forbidden="$forbidden|stdout|stderr|stdin|getenv|secure_getenv|setenv|putenv|unsetenv|setlocale|localeconv|strtod|strtof"
forbidden="$forbidden|strtold|atof|sscanf|__isoc99_sscanf|__isoc23_sscanf|scanf|rand|srand|random|srandom|strtok|strerror"
forbidden="$forbidden|isalpha|isdigit|isspace|isupper|islower|tolower|toupper|__ctype_b_loc|__ctype_tolower_loc"
forbidden="$forbidden|__ctype_toupper_loc|localtime|gmtime|asctime|ctime|dlclose|chdir|umask"
wrong=$(printf '%s\n' "$wanted" | grep -xE "$forbidden" || true)
[ -z "$wrong" ] || complain "calls that an embedded library must not make" "$wrong"

# Writable globals: .data, .bss and common symbols of our own objects. Constant tables of pointers (.data.rel.ro) are
# read-only once loaded, and nm calls them d too: they are told apart by their section.
wrong=$(objdump -t "$archive" | awk '/^[^ ]+\.o: / { file = $1 }
    $0 ~ / O / && ($0 ~ /[ \t]\.(data|bss|tdata|tbss)[ \t.]/ || $0 ~ /\*COM\*/) && $0 !~ /\.data\.rel\.ro/ { print file, $NF }')
[ -z "$wrong" ] || complain "writable globals" "$wrong"
wrong=$(objdump -h "$archive" | awk '$2 ~ /^\.(init_array|fini_array|ctors|dtors)/' || true)
[ -z "$wrong" ] || complain "constructors or destructors" "$wrong"

# The size budget of inference and training on the CPU, stripped; docs/abi.md states it.
budget=1500000
stripped=$(mktemp)
strip -o "$stripped" "$so"
size=$(stat -c %s "$stripped")
rm -f "$stripped"
if grep -q '^CMAKE_BUILD_TYPE:STRING=Release$' "$build/CMakeCache.txt" && [ "$size" -ge $budget ]; then
    complain "too large" "the stripped library has $size bytes; the budget is $budget"
fi

[ $bad = 0 ] || exit 1
echo "$size bytes stripped, of $budget"
echo "$(printf '%s\n' "$exported" | grep -c '^emo_') functions exported, all emo_* and declared; no forbidden call; no writable global"
