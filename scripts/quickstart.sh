#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh machine to a trained EMO: installs what is missing, builds, gathers real documents, trains an EMO and a
# standard MoE of the same shape, picks expert subsets from one document a domain, prints the table and writes a page.
set -u
usage() {
    cat <<'EOF'
usage: scripts/quickstart.sh [--minutes M] [--out DIR]
  --minutes M   how long the whole run may take, about; what installing and building leave is for training (11)
  --out DIR     where the models, results.json and index.html go (build/quickstart; emptied first)
exit status: 0 the EMO's growth at 25 % of the routed experts is below a third of the standard model's
             3 it is not, or packages are missing    1 something failed    2 wrong usage
EOF
}
started=$(date +%s)
root=$(cd "$(dirname "$0")/.." && pwd)
minutes=11
out=$root/build/quickstart
while [ $# -gt 0 ]; do
    case $1 in
    --minutes | --out)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        if [ "$1" = --minutes ]; then minutes=$2; else out=$2; fi
        shift 2
        ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
[[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || { usage >&2; exit 2; }
. "$root/scripts/common.sh"
elapsed() { echo $(($(date +%s) - started)); }
say() { printf '[%5d s] %s\n' "$(elapsed)" "$*" >&2; }
build=${EMO_BUILD_DIR:-$root/build}

say "looking for what the build needs"
"$root/scripts/deps.sh" build quickstart || exit 3
say "looking for documents"
"$root/scripts/deps.sh" documents || say "going on with the documents that are there"
say "building"
emo_build "$build" -DCMAKE_BUILD_TYPE=Release >&2 || exit 1
# Only what an earlier run of this script left is removed.
if [ -e "$out/config.json" ] || [ -e "$out/corpus" ]; then
    rm -rf "$out/corpus" "$out/emo" "$out/standard" "$out/masks" "$out/valid" "$out/test" "$out"/*.json "$out"/*.log
fi
mkdir -p "$out" || exit 1
say "gathering documents"
python3 "$root/scripts/gather_documents.py" "$out/corpus" >&2 || exit 1
seconds=$(awk -v m="$minutes" -v e="$(elapsed)" 'BEGIN { print m * 60 - e }')
emo=$(emo_program "$build") || exit 1
exec python3 "$root/scripts/quickstart.py" --emo "$emo" --corpus "$out/corpus" --out "$out" --seconds "$seconds"
