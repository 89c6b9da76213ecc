#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The modularity experiment on a corpus of labelled documents: a folder with train, valid and test .jsonl or .jsonl.gz,
# each line with "domain" and "text". Prints the table of docs/modularity.md; results.json has every number.
# Training takes the most time and goes on where it was stopped when the same --out is given again.
set -u
usage() {
    cat <<'EOF'
usage: scripts/modularity.sh CORPUS_DIR [--tokens N] [--out DIR] [--seed N] [--window N] [--methods A,B] [--draws N]
  --tokens N    tokens each of the two models is trained on (8500000)
  --out DIR     where models and results go (build/modularity)
exit status: 0 the EMO's growth at 25 % of the routed experts is below a third of the standard model's; 3 it is not
EOF
}
case ${1-} in -h | --help) usage && exit 0 ;; esac
[ $# -ge 1 ] && [ -d "$1" ] || { usage >&2; exit 2; }
corpus=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
build=${EMO_BUILD_DIR:-$root/build}
out=$build/modularity
rest=()
while [ $# -gt 0 ]; do
    case $1 in
    --out | --tokens | --seed | --window | --methods | --draws)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        if [ "$1" = --out ]; then out=$2; else rest+=("$1" "$2"); fi
        shift 2
        ;;
    *) usage >&2 && exit 2 ;;
    esac
done
. "$root/scripts/common.sh"
"$root/scripts/deps.sh" build quickstart || exit 3
emo_build "$build" -DCMAKE_BUILD_TYPE=Release >&2 || exit 1
mkdir -p "$out" || exit 1
emo=$(emo_program "$build") || exit 1
exec python3 "$root/scripts/modularity.py" --emo "$emo" --corpus "$corpus" --out "$out" ${rest[@]+"${rest[@]}"}
