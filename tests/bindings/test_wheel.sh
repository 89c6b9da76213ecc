#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The wheel of the Python package around the shared library of this build: what is in it, its name, and its use in a fresh
# virtual environment. (scripts/wheel.sh --test builds the library as well, and runs all tests of the package on it.)
# usage: test_wheel.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1
library=$(realpath "$2/libemo.so" 2>/dev/null) || { echo "no shared library in this build"; exit 77; }
[ -e "$library" ] || { echo "no shared library in this build"; exit 77; }
if nm -D "$library" | grep -qE '__(asan|tsan|ubsan)_'; then
    echo "a sanitizer build: the interpreter is none"
    exit 77
fi
python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, setuptools.command.bdist_wheel' 2>/dev/null ||
        "$candidate" -c 'import ensurepip, setuptools, wheel' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "no Python with venv, setuptools and wheel (scripts/deps.sh wheel)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$source/bindings/python" "$work/package"
rm -rf "$work/package/build" "$work/package/emo.egg-info"
# As pip calls it, without pip: a fresh environment may bring an older setuptools.
mkdir "$work/dist"
(cd "$work/package" && EMO_SOURCE_DIR=$source EMO_BUNDLE_LIBRARY=$library "$python" -c \
    'import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])' "$work/dist" >"$work/log" 2>&1) ||
    { echo "FAILED: the wheel was not built"; tail -n 20 "$work/log"; exit 1; }
version=$(sed -n 's/^project(emo VERSION \([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")
wheel=$work/dist/emo-$version-py3-none-$("$python" -c 'import sysconfig; print(sysconfig.get_platform().replace("-", "_"))').whl
[ -e "$wheel" ] || { echo "FAILED: no $wheel"; ls "$work/dist"; exit 1; }
listed=$("$python" -m zipfile -l "$wheel" | awk '{print $1}')
for wanted in emo/__init__.py emo/LICENSE emo/_abi.py emo/py.typed "emo/lib/libemo.so.${version%%.*}"; do
    grep -qxF "$wanted" <<<"$listed" || { echo "FAILED: $wanted is not in the wheel"; echo "$listed"; exit 1; }
done
PYTHON=$python bash "$source/tests/bindings/try_wheel.sh" "$source" "$wheel" "$work" --short
