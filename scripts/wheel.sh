#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes the wheel of the Python package, libemo inside: build/dist/emo-VERSION-py3-none-PLATFORM.whl. The platform is
# manylinux_2_N with the glibc that the libraries inside need: a wheel for older systems is built on an older system.
# usage: scripts/wheel.sh [--test]
#   --test  also installs it into a fresh virtual environment and runs tests/bindings/python on it there
# The network is needed only where setuptools is not installed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
case ${1-} in
'' | --test) ;;
*) echo "usage: scripts/wheel.sh [--test]" >&2 && exit 2 ;;
esac
"$root/scripts/deps.sh" build wheel
work=$root/build/wheel
dist=$root/build/dist
mkdir -p "$work" "$dist"
rm -rf "$work/venv" "$work/source" "$dist"/emo-*.whl

python=$(emo_python 'import setuptools.command.bdist_wheel' 'import setuptools, wheel')
if [ -z "$python" ]; then
    "${PYTHON:-python3}" -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -q --disable-pip-version-check 'setuptools>=70.1'
fi
emo_wheel "$python" "$work/source" "$dist"
wheel=$(echo "$dist"/emo-*.whl)
sed -n 's/^setup.py: a wheel for machines like this one/wheel.sh: a wheel for machines like this one/p' "$work/source/log" >&2
echo "$wheel"

if [ "${1-}" = --test ]; then
    bash "$root/tests/bindings/try_wheel.sh" "$root" "$wheel" "$work"
fi
