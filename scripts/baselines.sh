#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the memory of a subset could hold instead: next to the EMO and the standard MoE, a small MoE with as many experts
# as the 25 % subset keeps and a dense model with as many parameters as are active, trained on the same tokens. Prints
# memory and quality of all of them, with the subsets. The corpus is that of modularity.sh.
# What was trained and measured is kept: the same --out given again goes on where it was stopped.
set -u
usage() {
    cat <<'EOF'
usage: scripts/baselines.sh CORPUS_DIR [--emo-model DIR --standard-model DIR] [options]
  --emo-model DIR, --standard-model DIR   trained models; without them both are trained as modularity.sh does
  --tokens N       tokens each model is trained on (8500000; with given models, what those were trained on)
  --config FILE    config.json: the shape of the EMO and the standard MoE if they are trained here
  --seed N, --window N                    of the training (1, 10)
  --draws N        draws of the document that picks a subset (1)
  --test-bytes N   test documents a domain, in bytes of text (all)
  --jobs N         processes at a time, each of one thread, while subsets are measured (the CPUs)
  --out DIR        where models and results go (build/baselines)
exit status: 0 the EMO's 25 % subset has fewer bits per byte than the small MoE and the dense model
             3 it has not, or packages are missing    1 something failed    2 wrong usage
EOF
}
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
emo_experiment baselines "--emo-model --standard-model --tokens --config --seed --window --draws --test-bytes --jobs" "$@"
