#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the packages of scripts/deb.sh in a fresh Debian root and uses them there: the program trains and generates,
# C and C++ programs build through pkg-config, Python imports what it may, and everything can be removed again.
# Needs root, debootstrap and a Debian mirror. usage: scripts/deb_root.sh [FOLDER_WITH_DEBS]      (default: build/deb)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
debs=$(cd "${1:-$root/build/deb}" && pwd)
[ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null 2>&1 || { echo "deb_root.sh needs root and debootstrap" >&2; exit 3; }
ls "$debs"/libemo0_*.deb "$debs"/libemo-dev_*.deb "$debs"/emo_*.deb >/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
mirror=${EMO_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -n 1)}
work=$(mktemp -d)
new=$work/root
mounted=
cleanup() {
    for at in $mounted; do umount "$new/$at" 2>/dev/null || umount -l "$new/$at" || true; done
    # Never remove what still has somebody else's folders below it.
    if grep -q " $new/" /proc/mounts; then echo "still mounted below $new: it is left there" >&2; else rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "== a root of $suite from ${mirror:-the default mirror}"
debootstrap --variant=minbase "$suite" "$new" ${mirror:+"$mirror"} >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
chmod 1777 "$new/tmp"
cp /etc/resolv.conf "$new/etc/resolv.conf"
mkdir "$new/debs"
cp "$debs"/*.deb "$new/debs/"
rm -f "$new"/debs/*-dbgsym_*
mkdir -p "$new/source/docs" "$new/source/tests/install"
cp -r "$root/docs/tasks" "$root/docs/python.md" "$new/source/docs/"
cp "$root/tests/install/test_docs.sh" "$new/source/tests/install/"
cp "$root/tests/install/consumer.c" "$root/tests/install/consumer.cpp" "$new/debs/"
for at in dev proc; do
    mount --bind "/$at" "$new/$at"
    mounted="$at $mounted"
done
cat >"$new/debs/use.sh" <<'EOT'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
cd /debs
apt-get update -qq
echo "== the program alone"
apt-get -o Dpkg::Use-Pty=0 install -qq -y --no-install-recommends ./libemo0_*.deb ./emo_*.deb >/dev/null
! dpkg -l gcc 2>/dev/null | grep -q ^ii
emo --version
for i in 1 2 3 4 5 6; do echo '{"text": "the oven and the flour and the butter"}'; done >docs.jsonl
echo '{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 9,
 "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 64}' >config.json
emo tokenizer train --data docs.jsonl --vocab-size 270 --out tok.json --quiet
emo train --config config.json --tokenizer tok.json --data docs.jsonl --pool uniform:2:8 --steps 5 --batch 2 --seq-len 32 \
    --out model --quiet
emo generate --model model --prompt "the oven" --tokens 8
test -e /usr/share/man/man1/emo.1.gz || grep -q path-exclude /etc/dpkg/dpkg.cfg.d/* 2>/dev/null
echo "== consumers"
apt-get -o Dpkg::Use-Pty=0 install -qq -y --no-install-recommends ./libemo-dev_*.deb gcc g++ libc6-dev pkg-config >/dev/null
gcc -std=c11 consumer.c $(pkg-config --cflags --libs emo) -o c && ./c
gcc -std=c11 consumer.c $(pkg-config --cflags emo) $(pkg-config --static --libs emo | sed 's/-lemo/-l:libemo.a/') -o cs && ./cs
! ldd cs | grep -q libemo
g++ -std=c++17 consumer.cpp $(pkg-config --cflags --libs emo) -o cpp && ./cpp
echo "== docs/tasks, as they stand"
bash /source/tests/install/test_docs.sh /source installed | tail -n 5
if ls python3-emo_*.deb >/dev/null 2>&1; then
    echo "== Python"
    apt-get -o Dpkg::Use-Pty=0 install -qq -y --no-install-recommends ./python3-emo_*.deb >/dev/null
    mkdir /python
    cd /python
    sed -n '/^[`]\{3\}python$/,/^[`]\{3\}$/p' /source/docs/python.md | grep -v '^[`][`][`]' >page.py
    python3 page.py >out || { tail -n 5 out; exit 1; }
    echo "docs/python.md runs: $(ls -d nano health-6 | tr '\n' ' ')"
    cd /debs
fi
echo "== removed again"
apt-get -o Dpkg::Use-Pty=0 purge -qq -y libemo0 >/dev/null
! ls /usr/lib/*/libemo* /usr/bin/emo 2>/dev/null
EOT
chroot "$new" bash /debs/use.sh || { echo "FAILED in the new root"; exit 1; }
echo "the packages install, work and go in a fresh $suite"
