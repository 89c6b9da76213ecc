#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The wheel of the Python package around the shared library of this build: what is in it, its name, and its use in a fresh
# virtual environment. (scripts/wheel.sh --test builds the library as well, and runs all tests of the package on it.)
# usage: test_wheel.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
root=$source
. "$source/scripts/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_plain_library "$2"
python=$(emo_python 'import ensurepip, setuptools.command.bdist_wheel' 'import ensurepip, setuptools, wheel')
[ -n "$python" ] || { echo "no Python with venv, setuptools and wheel (scripts/deps.sh wheel)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
EMO_BUNDLE_LIBRARY=$library emo_wheel "$python" "$work/package" "$work/dist"
# The build's library looks for PCRE2 and utf8proc in the system, so that this wheel is for machines like this one. With
# them at its side the tag is what the symbols of all three allow (x86-64 and 64-bit Arm, glibc).
companions=$(ldd "$library" | sed -nE 's/^[[:space:]]*lib(pcre2-8|utf8proc)\.so[^ ]* => ([^ ]+).*/\2/p')
mkdir "$work/together"
cp $companions "$library" "$work/together"
newest=$(readelf -V "$work"/together/* | grep -oE 'GLIBC_2\.[0-9]+' | sort -uV | tail -n 1)
tag=$("$python" "$source/bindings/python/platform_tag.py" "$work"/together/*)
[ "$tag" = "manylinux_2_${newest#GLIBC_2.}_$(uname -m)" ] ||
    { echo "FAILED: the tag is $tag, and the newest symbol $newest"; exit 1; }
if [ -n "$companions" ] && "$python" "$source/bindings/python/platform_tag.py" "$library" 2>/dev/null; then
    echo "FAILED: a tag for a library that needs others"
    exit 1
fi
! "$python" "$source/bindings/python/platform_tag.py" "$source/LICENSE" 2>/dev/null || { echo "FAILED: a tag for a text"; exit 1; }
version=$(sed -n 's/^project(emo VERSION \([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")
wheel=$work/dist/emo-$version-py3-none-$("$python" -c 'import sysconfig; print(sysconfig.get_platform().replace("-", "_"))').whl
[ -e "$wheel" ] || { echo "FAILED: no $wheel"; ls "$work/dist"; exit 1; }
listed=$("$python" -m zipfile -l "$wheel" | awk '{print $1}')
for wanted in emo/__init__.py emo/LICENSE emo/_abi.py emo/py.typed "emo/lib/libemo.so.${version%%.*}"; do
    grep -qxF "$wanted" <<<"$listed" || { echo "FAILED: $wanted is not in the wheel"; echo "$listed"; exit 1; }
done
PYTHON=$python bash "$source/tests/bindings/try_wheel.sh" "$source" "$wheel" "$work" --short
