#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds for 64-bit Arm with Debian's cross compiler and runs the test programs under qemu-aarch64. Optional: it wants
# packages of a second architecture, which it installs when it may (root); exit status 3 where they are not to be had.
# usage: scripts/test_aarch64.sh [--kernels] [BUILD_DIR] [ctest options]
#   --kernels  only the programs that compute with the CPU's kernels, without the slowest: minutes instead of an hour
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. "$root/scripts/common.sh"
only=()
emo_targets=()
if [ "${1-}" = --kernels ]; then
    shift
    emo_targets=(test_isa test_gemm test_ops test_vmath test_experts test_attention test_head test_sample test_quant test_router
        test_linear_grad test_masked_equals_pruned)
    only=(-R "^($(IFS='|' && echo "${emo_targets[*]}"))\$")
fi
build=${1-build-aarch64}
[ $# = 0 ] || shift
packages="gcc-aarch64-linux-gnu libc6-dev:arm64 libpcre2-dev:arm64 zlib1g-dev:arm64
    libutf8proc-dev:arm64 libcmocka-dev:arm64 qemu-user pkg-config cmake"
if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null ||
    ! PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig \
        pkg-config --exists libpcre2-8 zlib libutf8proc cmocka; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing some of: $packages" >&2
        echo "an administrator can run: dpkg --add-architecture arm64; apt-get update; apt-get install $packages" >&2
        exit 3
    fi
    if ! { dpkg --add-architecture arm64 && apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages; }; then
        echo "the packages could not be installed: $packages" >&2
        exit 3
    fi
fi
emo_build "$build" -DCMAKE_TOOLCHAIN_FILE="$root/cmake/aarch64-linux-gnu.cmake" -DCMAKE_BUILD_TYPE=Release \
    -DEMO_BUILD_TESTS=ON -DEMO_WERROR=ON
# The scripts among the tests are about the build machine's compiler.
ctest --test-dir "$build" -LE script --output-on-failure ${only[@]+"${only[@]}"} "$@"

# The same machine without some of its extensions: the level it takes by itself, and the products of all that it has.
while read -r cpu level; do
    for test in test_isa test_gemm; do
        out=$(QEMU_CPU=$cpu qemu-aarch64 "$build/tests/$test" 2>&1) || { echo "$out" && echo "FAILED: $test on $cpu" && exit 1; }
        [ $test != test_isa ] || grep -q "^this machine: $level\$" <<<"$out" ||
            { echo "$out" && echo "FAILED: $cpu does not take $level" && exit 1; }
    done
    echo "$cpu: $level, products pass"
done <<'CPUS'
cortex-a53 neon
neoverse-n1 neon-dot
max neon-bf16
CPUS
