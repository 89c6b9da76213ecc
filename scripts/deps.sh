#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sees to it that the packages a task needs are there (Debian and its relatives).
# What is present is left alone; what is missing is installed through apt when this user may (root, or sudo without a
# password), and otherwise named, with exit status 3.
set -eu

usage() {
    cat <<'EOF'
usage: scripts/deps.sh [build|test|wheel|fuzz|check|count|deb|extra|quickstart|documents]... [--dry-run]
  build       compiler, CMake, pkg-config and the four libraries libemo is built on (the default)
  test        wheel, and cmocka, a C++ compiler and pytest
  wheel       build, and what makes a wheel of the Python package: Python 3 with venv, setuptools and wheel
  fuzz        test, and clang with libFuzzer
  check       test, and what only development uses: clang-format, clang-tidy, doxygen, abigail-tools ...
  count       build, and valgrind, which tests/bench/count_instructions.sh counts with
  deb         what scripts/deb.sh builds Debian packages with
  extra       what some tests want and others do without: abigail-tools, Doxygen, Mono
  quickstart  build, and Python 3 (standard library only)
  documents   packages whose texts the quick start trains on (scripts/documents.txt); those apt does not know are left out
  --dry-run   say what is missing, install nothing
exit status: 0 everything is there; 3 something is missing and could not be installed; 2 wrong usage
EOF
}

# One line per package: name, then a command that succeeds where its contents are already there, from wherever.
# A document package counts as there only if its texts are: small container images leave documentation out.
BUILD='gcc|command -v cc
libc6-dev|test -e /usr/include/stdio.h
make|command -v ninja || command -v make
cmake|command -v cmake
pkg-config|command -v pkg-config
libpcre2-dev|pkg-config --exists "libpcre2-8 >= 10.32"
zlib1g-dev|pkg-config --exists zlib
libutf8proc-dev|pkg-config --exists libutf8proc'
TEST='g++|command -v c++
binutils|command -v nm
libcmocka-dev|pkg-config --exists cmocka
python3|python3 -c "import json, html, gzip"
python3-pytest|python3 -c "import pytest" || /usr/bin/python3 -c "import pytest"'
WHEEL='python3|python3 -c "import json"
python3-venv|python3 -c "import ensurepip" || /usr/bin/python3 -c "import ensurepip"
python3-setuptools|python3 -c "import setuptools" || /usr/bin/python3 -c "import setuptools"
python3-wheel|python3 -c "import setuptools.command.bdist_wheel" || /usr/bin/python3 -c "import wheel"'
# libFuzzer comes with clang's runtimes, in a package of their own (libclang-rt-14-dev) on newer systems.
FUZZ='clang|command -v clang
libclang-rt-dev|ls "$(clang -print-runtime-dir)"/libclang_rt.fuzzer*.a'
CHECK='clang-format|command -v clang-format
clang-tidy|command -v clang-tidy
clang|command -v clang
doxygen|command -v doxygen
abigail-tools|command -v abidw
gcovr|command -v gcovr
valgrind|command -v valgrind
ninja-build|command -v ninja'
COUNT='valgrind|command -v valgrind'
DEB='debhelper|command -v dh
dpkg-dev|command -v dpkg-buildpackage
g++|command -v g++
fakeroot|command -v fakeroot
dh-python|test -e /usr/share/perl5/Debian/Debhelper/Sequence/python3.pm
man-db|command -v man
lintian|command -v lintian'
EXTRA='abigail-tools|command -v abidw
doxygen|command -v doxygen
mono-mcs|command -v mcs
mono-runtime|command -v mono'
QUICKSTART='python3|python3 -c "import json, html, gzip"'

modes=
dry=0
for arg in "$@"; do
    case $arg in
    build | test | wheel | fuzz | check | count | deb | extra | quickstart | documents) modes="$modes $arg" ;;
    --dry-run) dry=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

list=$BUILD
for mode in ${modes:-build}; do
    case $mode in
    test) list="$list
$TEST
$WHEEL" ;;
    wheel) list="$list
$WHEEL" ;;
    fuzz) list="$list
$TEST
$FUZZ" ;;
    check) list="$list
$TEST
$CHECK" ;;
    count) list="$list
$COUNT" ;;
    deb) list="$list
$DEB" ;;
    extra) list="$list
$EXTRA" ;;
    quickstart) list="$list
$QUICKSTART" ;;
    documents) list="$list
$(sed 's/#.*//; /^ *$/d' "$(dirname "$0")/documents.txt" | awk '{print $1 "|ls -d " $2}')" ;;
    esac
done

# Sets `missing`. Where pkg-config is not there yet its libraries count as missing; apt knows which of them are not.
run_checks() {
    missing=
    local line package check seen=' '
    while IFS= read -r line; do
        package=${line%%|*}
        check=${line#*|}
        case $seen in *" $package "*) continue ;; esac
        seen="$seen$package "
        sh -c "$check" >/dev/null 2>&1 || missing="$missing $package"
    done <<<"$list"
    missing=${missing# }
}

run_checks
[ -n "$missing" ] || exit 0
if [ "$dry" = 1 ]; then
    echo "missing: $missing"
    exit 3
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root='sudo -n'
fi
if ! command -v apt-get >/dev/null 2>&1 || { [ -n "$as_root" ] && ! sudo -n true >/dev/null 2>&1; }; then
    {
        echo "deps.sh: these packages are missing, and this user may not install them:"
        printf '  %s\n' $missing
        echo "an administrator can run: apt-get install --no-install-recommends $missing"
    } >&2
    exit 3
fi

install_missing() {
    # The wait covers a machine whose own updater holds the lock for a moment.
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 \
        -o Dpkg::Use-Pty=0 install -qq -y --no-install-recommends $missing >/dev/null
}

# Package lists are fetched only where a package is unknown to the ones at hand, or its file is no longer on the mirror.
is_known() { [ -n "$(apt-cache show "$1" 2>/dev/null)" ]; }
known=1
for package in $missing; do
    is_known "$package" || known=0
done
echo "deps.sh: installing $missing" >&2
if [ $known = 0 ] || ! install_missing; then
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update -qq >&2 || true
    case $modes in
    *documents*)
        wanted=$missing
        missing=
        for package in $wanted; do
            if is_known "$package"; then missing="$missing $package"; else echo "deps.sh: apt does not know $package" >&2; fi
        done
        ;;
    esac
    install_missing || true
fi
hash -r
run_checks
if [ -n "$missing" ]; then
    {
        echo "deps.sh: still missing after apt-get install:"
        printf '  %s\n' $missing
    } >&2
    exit 3
fi
