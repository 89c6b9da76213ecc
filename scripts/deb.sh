#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Debian packages libemo0, libemo-dev, emo and python3-emo from this tree, and lets lintian look at them.
# The same tree gives the same bytes. usage: scripts/deb.sh [OUT_FOLDER]      (default: build/deb)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1-} in -*) sed -n '3,4s/^# //p' "$0" && exit 2 ;; esac
out=${1:-$root/build/deb}
mkdir -p "$out"
out=$(cd "$out" && pwd)
"$root/scripts/deps.sh" build deb
version=$(sed -n 's/^#define EMO_VERSION_STRING "\(.*\)"/\1/p' "$root/include/emo/version.h")
tree=$out/libemo-$version
rm -rf "$tree" "$out"/*.deb "$out"/*.changes "$out"/*.buildinfo
mkdir -p "$tree"
if git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 ls -d 2>/dev/null | tar cf - -T -) | tar xf - -C "$tree"
else
    (cd "$root" && tar cf - --exclude='./build*' --exclude=__pycache__ .) | tar xf - -C "$tree"
fi
cp -r "$tree/packaging/debian" "$tree/debian"
if [ -d "$tree/bindings/python/emo" ]; then
    cat "$tree/debian/control.python" >>"$tree/debian/control"
    sed -i 's/^Build-Depends: /&dh-python, python3:any, /' "$tree/debian/control"
else
    rm "$tree/debian/python3-emo.install"
fi
rm "$tree/debian/control.python"
[ "$(dpkg-parsechangelog -l "$tree/debian/changelog" -S Version)" = "$version" ] ||
    { echo "deb.sh: packaging/debian/changelog is not of version $version" >&2; exit 1; }
(cd "$tree" && DEB_BUILD_OPTIONS="nocheck parallel=$(nproc) ${DEB_BUILD_OPTIONS-}" dpkg-buildpackage -us -uc -b) >"$out/build.log" 2>&1 ||
    { tail -n 30 "$out/build.log"; echo "deb.sh: the build failed" >&2; exit 1; }
rm -rf "$tree"
ls -1 "$out"/*.deb
if command -v lintian >/dev/null 2>&1; then
    as_root=
    [ "$(id -u)" != 0 ] || as_root=--allow-root
    lintian $as_root --fail-on error "$out"/*.changes
    echo "lintian found no error"
fi
