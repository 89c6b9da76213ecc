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
  --jobs N      processes at a time, each of one thread, while subsets are measured (the CPUs)
  --out DIR     where models and results go (build/modularity)
exit status: 0 the EMO's growth at 25 % of the routed experts is below a third of the standard model's; 3 it is not
EOF
}
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
emo_experiment modularity "--tokens --seed --window --methods --draws --jobs" "$@"
