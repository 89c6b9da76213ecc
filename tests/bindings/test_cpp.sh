#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The C++ binding: every call of the public headers is in it; its tests are built and run with each C++ compiler there is,
# with exceptions and without them and RTTI, under strict warnings, once under AddressSanitizer; each header stands alone.
# usage: test_cpp.sh SOURCE_DIR BUILD_DIR
set -u
source=$1
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_library "$2"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
fail() {
    echo "FAILED: $*"
    bad=1
}

# The options' init functions are for languages without macros: the binding uses the INIT macros.
count=0
for name in $(cat "$source"/include/emo/*.h | tr '\n' ' ' | grep -oE 'EMO_API [^;{]*' |
    grep -oE '\bemo_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u | grep -vE '_init$'); do
    grep -rqE "\\b$name\\b" "$source"/bindings/cpp || fail "$name is not in the C++ binding"
    count=$((count + 1))
done
[ $count -gt 150 ] || fail "found only $count functions"
# And every options struct has a class.
for name in $(grep -rhoE 'define EMO_[A-Z0-9_]+_INIT( |$)' "$source"/include/emo/*.h | awk '{ print $2 }' | sort -u); do
    grep -rq "\\b$name\\b" "$source"/bindings/cpp || fail "$name is not used by the C++ binding"
done
echo "$count calls are in the binding"

strict="-std=c++17 -pedantic -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Werror"
include="-I $source/bindings/cpp -I $source/include"
compilers=
for cxx in g++ clang++ c++; do
    command -v $cxx >/dev/null 2>&1 || continue
    [ $cxx = c++ ] && [ -n "$compilers" ] && continue
    compilers="$compilers $cxx"
done
[ -n "$compilers" ] || { echo "no C++ compiler"; exit 77; }
# build_and_run NAME COMPILER OPTIONS...
build_and_run() {
    local name=$1
    shift
    rm -rf "$work/files"
    mkdir "$work/files"
    "$@" $strict $include "$source/tests/bindings/cpp_binding.cpp" -o "$work/test" -L "$build" -lemo \
        -Wl,-rpath,"$build" 2>"$work/log" || { head -n 20 "$work/log"; fail "$name does not build"; return; }
    [ "$("$work/test" "$work/files" 2>"$work/log")" = ok ] || { head -n 20 "$work/log"; fail "$name"; return; }
    echo "$name: built and run"
}
for cxx in $compilers; do
    build_and_run "$cxx" $cxx
    build_and_run "$cxx -fno-exceptions -fno-rtti" $cxx -fno-exceptions -fno-rtti
done
first=${compilers# }
first=${first%% *}
echo 'int main() { return 0; }' >"$work/empty.cpp"
if $first -fsanitize=address,undefined "$work/empty.cpp" -o "$work/empty" 2>/dev/null && "$work/empty"; then
    build_and_run "$first with sanitizers" $first -g -fsanitize=address,undefined -fno-sanitize-recover=all
fi

# Both forms in one program: object files of either kind do not mix their classes up.
printf '#include <emo.hpp>\nint returning();\nint returning() { return emo::mask::load(emo::runtime(), "x").code(); }\n' >"$work/a.cpp"
cat >"$work/b.cpp" <<'EOC'
#include <emo.hpp>
int returning();
int main() {
    int code = 0;
    try {
        static_cast<void>(emo::mask::load(emo::runtime(), "x"));
    } catch (const emo::exception &e) {
        code = e.code();
    }
    return code == EMO_E_INVALID_ARGUMENT && returning() == code ? 0 : 1;
}
EOC
$first $strict $include -fno-exceptions -c "$work/a.cpp" -o "$work/a.o" &&
    $first $strict $include "$work/b.cpp" "$work/a.o" -o "$work/both" -L "$build" -lemo -Wl,-rpath,"$build" &&
    "$work/both" || fail "both forms in one program"

count=0
while IFS= read -r header; do
    printf '#include <%s>\n' "${header#"$source"/bindings/cpp/}" |
        $first $strict $include -fsyntax-only -x c++ - || fail "$header does not compile alone"
    count=$((count + 1))
done < <(find "$source/bindings/cpp" -name '*.hpp')
[ $count -gt 5 ] || fail "found $count headers"
echo "$count headers of the binding compile alone"
[ $bad = 0 ]
