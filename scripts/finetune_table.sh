#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Expert subsets before and after fine-tuning them, for an EMO and a standard MoE, and the tuned experts put back into
# their parents. The corpus is that of modularity.sh; mc.jsonl or mc.jsonl.gz beside it has multiple-choice items on the
# test documents, which are made from the test split where the file is missing.
# What was trained and measured is kept: the same --out given again goes on where it was stopped.
set -u
usage() {
    cat <<'EOF'
usage: scripts/finetune_table.sh CORPUS_DIR [--emo-model DIR --standard-model DIR] [options]
  --emo-model DIR, --standard-model DIR   trained models; without them both are trained as modularity.sh does
  --tokens N       tokens each of the two models is trained on (8500000)
  --config FILE    config.json: the shape of models that are trained here
  --seed N, --window N                    of that training (1, 10)
  --domains A,B    the domains that are tuned for (all)
  --tune-steps N   steps of a fine-tuning, each of about 3000 tokens (100)
  --tune-lr X      its highest learning rate (0.001)
  --draws N        draws of the document that picks a subset, each tuned by itself (1)
  --items N        held-out items a domain, at most (all)
  --test-bytes N   test documents a domain on which merged models are measured, in bytes of text (40000)
  --jobs N         processes at a time, each of one thread, while subsets are measured and tuned (the CPUs)
  --out DIR        where models and results go (build/finetune_table)
exit status: 0 at 25 % of the routed experts the EMO's growth is below a third of the standard model's, before and after
             3 it is not, or packages are missing    1 something failed    2 wrong usage
EOF
}
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/common.sh"
emo_experiment finetune_table "--emo-model --standard-model --tokens --config --seed --window --domains --tune-steps \
--tune-lr --draws --items --test-bytes --jobs" "$@"
