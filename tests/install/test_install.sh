#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs into a scratch prefix, moves it, and builds C11 and C++17 consumers there through pkg-config (shared and
# static) and through find_package; then every installed header alone, and the README's example.
# usage: test_install.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
build=$2
here=$source/tests/install
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}

cmake --install "$build" --prefix "$work/first" >"$work/install.log" 2>&1 || { cat "$work/install.log"; fail "install"; }
mv "$work/first" "$work/prefix" # nothing installed may remember where it was first put
prefix=$work/prefix
pc=$(dirname "$(find "$prefix" -name emo.pc)")
export PKG_CONFIG_PATH=$pc
lib=$(realpath "$(pkg-config --variable=libdir emo)")
[ "$(cd "$lib" && pwd)" = "$(cd "$pc/.." && pwd)" ] || fail "emo.pc points to $lib"
ls "$lib"/libemo.so "$lib"/libemo.so.0 "$lib"/libemo.a >/dev/null || fail "a library is missing"
[ "$(readelf -d "$lib/libemo.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" = libemo.so.0 ] || fail "the soname"
if [ -e "$prefix/bin/emo" ]; then
    LD_LIBRARY_PATH=$lib "$prefix/bin/emo" --help >/dev/null || fail "the installed program does not start"
fi

c="cc -std=c11 -pedantic -Wall -Wextra -Werror"
cxx="c++ -std=c++17 -pedantic -Wall -Wextra -Wold-style-cast -Werror -x c++"
for kind in shared static; do
    static=
    [ $kind = shared ] || static=--static
    read -ra flags <<<"$(pkg-config --cflags emo)"
    read -ra libs <<<"$(pkg-config $static --libs emo)"
    # Beside libemo.so the linker would take that: name the archive.
    [ $kind = shared ] || libs=("${libs[@]/#-lemo/-l:libemo.a}")
    $c "${flags[@]}" "$here/consumer.c" -o "$work/c_$kind" "${libs[@]}" || fail "C consumer, pkg-config, $kind"
    $cxx "${flags[@]}" "$here/consumer.c" -x none -o "$work/cpp_$kind" "${libs[@]}" ||
        fail "C++ consumer, pkg-config, $kind"
    $cxx "${flags[@]}" "$here/consumer.cpp" -x none -o "$work/raii_$kind" "${libs[@]}" ||
        fail "consumer of the C++ binding, pkg-config, $kind"
    for language in c cpp raii; do
        [ "$(LD_LIBRARY_PATH=$lib "$work/${language}_$kind")" = ok ] || fail "the $language consumer, $kind, does not run"
    done
done
ldd "$work/c_static" | grep -q libemo && fail "the static consumer wants libemo.so"
ldd "$work/c_shared" | grep -q libemo.so.0 || fail "the shared consumer does not want libemo.so.0"
echo "pkg-config: shared and static, C11 and C++17"

expect=
[ ! -e "$prefix/bin/emo" ] || expect=cli
find_it() { cmake -S "$here" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" "$@" >"$work/log" 2>&1; }
find_it -DEMO_EXPECT=$expect || { cat "$work/log"; fail "find_package"; }
grep -q 'no cuda plug-in' "$work/log" || [ -e "$lib/emo/libemo_cuda.so" ] || fail "find_package found a plug-in"
cmake --build "$work/consumer" >"$work/log" 2>&1 || { cat "$work/log"; fail "build with find_package"; }
for program in c_emo c_static cpp_emo cpp_static raii_emo raii_static; do
    [ "$("$work/consumer/$program")" = ok ] || fail "$program (find_package) does not run"
done
# Components that are not there: REQUIRED fails and names them; a plug-in that is there is found.
if [ ! -e "$lib/emo/libemo_cuda.so" ]; then
    find_it -DEMO_EXPECT=cuda && fail "find_package found the component cuda where there is none"
    grep -q cuda "$work/log" || { cat "$work/log"; fail "find_package does not name the component that lacks"; }
    mkdir "$lib/emo" && : >"$lib/emo/libemo_cuda.so"
    find_it -DEMO_EXPECT=cuda || { cat "$work/log"; fail "find_package does not find the plug-in"; }
    grep -q "cuda plug-in: $lib/emo/libemo_cuda.so = $lib/emo/libemo_cuda.so" "$work/log" || fail "emo_CUDA_PLUGIN"
    rm -r "$lib/emo"
fi
echo "find_package: emo::emo and emo::static, C11 and C++17, the C++ binding; components"

count=0
while IFS= read -r header; do
    name=${header#"$prefix"/include/}
    printf '#include <%s>\ntypedef int emo_unit_is_not_empty;\n' "$name" >"$work/alone.c"
    $c -I "$prefix/include" -fsyntax-only "$work/alone.c" || fail "$name alone as C11"
    $cxx -I "$prefix/include" -fsyntax-only "$work/alone.c" || fail "$name alone as C++17"
    count=$((count + 1))
done < <(find "$prefix/include/emo" -name '*.h' | sort)
[ $count -gt 3 ] || fail "only $count headers are installed"
echo "$count headers compile alone, as C11 -pedantic and as C++17"

# The C of the documentation compiles as it stands; a block with a main also links.
for page in "$source/README.md" "$source"/docs/*.md; do
    rm -f "$work"/example*.c
    awk -v dir="$work" '/^```c$/ { n++; inside = 1; next } /^```$/ { inside = 0 }
        inside { print > (dir "/example" n ".c") }' "$page"
    for example in "$work"/example*.c; do
        [ -e "$example" ] || continue
        if grep -q 'int main' "$example" && nm -D "$lib/libemo.so" | grep -q ' emo_session_create$'; then
            $c -I "$prefix/include" "$example" -o "$work/example" -L "$lib" -lemo || fail "${page##*/}: ${example##*/}"
        else
            $c -I "$prefix/include" -include emo/emo.h -Wno-unused-function -fsyntax-only "$example" ||
                fail "${page##*/}: ${example##*/}"
        fi
        echo "${page##*/}: ${example##*/} compiles"
    done
done
