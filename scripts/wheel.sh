#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes the wheel of the Python package, libemo inside: build/dist/emo-VERSION-py3-none-PLATFORM.whl.
# usage: scripts/wheel.sh [--test]
#   --test  also installs it into a fresh virtual environment and runs tests/bindings/python on it there
# The network is needed only where setuptools is not installed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1-} in
'' | --test) ;;
*) echo "usage: scripts/wheel.sh [--test]" >&2 && exit 2 ;;
esac
"$root/scripts/deps.sh" build wheel
work=$root/build/wheel
dist=$root/build/dist
mkdir -p "$work" "$dist"
rm -rf "$work/venv" "$work/source" "$dist"/emo-*.whl

python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
    if "$candidate" -c 'import setuptools.command.bdist_wheel' 2>/dev/null ||
        "$candidate" -c 'import setuptools, wheel' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    "${PYTHON:-python3}" -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -q --disable-pip-version-check 'setuptools>=70.1'
fi
# In a copy of the package's folder, so that the source tree stays as it is.
cp -r "$root/bindings/python" "$work/source"
rm -rf "$work/source/build"
(cd "$work/source" && EMO_SOURCE_DIR=$root "$python" -c \
    'import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])' "$dist" >"$work/log" 2>&1) ||
    { echo "the wheel was not built:"; tail -n 20 "$work/log"; exit 1; }
wheel=$(echo "$dist"/emo-*.whl)
echo "$wheel"

if [ "${1-}" = --test ]; then
    bash "$root/tests/bindings/try_wheel.sh" "$root" "$wheel" "$work"
fi
