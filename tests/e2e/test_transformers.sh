#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_transformers.sh SOURCE BUILD: folders that were written here, loaded by Hugging Face transformers with the
# reference's own model code, and folders that transformers wrote, loaded here. EMO_REFERENCE_CODE names a folder with
# the code (emo/modeling_emo.py and, for the dense baseline, olmo2_noqknorm_prenorm/), EMO_TRANSFORMERS_PYTHON a Python
# with transformers and torch (the code is written for transformers 4.57).
set -eu
SOURCE=$(realpath "$1")
BUILD=$(realpath "$2")
python=${EMO_TRANSFORMERS_PYTHON:-python3}
code=${EMO_REFERENCE_CODE:-}
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_library "$BUILD"
[ -n "$code" ] && [ -f "$code/emo/modeling_emo.py" ] || {
    echo 'skipped: EMO_REFERENCE_CODE names no folder with emo/modeling_emo.py (docs/interop.md)'
    exit 77
}
"$python" -c 'import torch, transformers' 2>/dev/null || {
    echo "skipped: no transformers and torch in $python (EMO_TRANSFORMERS_PYTHON=a Python that has them)"
    exit 77
}
code=$(realpath "$code")
. "$SOURCE/tests/e2e/tiny_run.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# A run as a user makes it: train, choose experts, prune, fine-tune the pruned model, put it back, other element types.
tiny_files
must "${train[@]}" --steps 100 --out trained
must "$EMO" select --model trained --calibration docs.jsonl --keep 5 --out mask.json
must "$EMO" prune --model trained --mask mask.json --out pruned
must "$EMO" train --from pruned --data docs.jsonl --steps 20 --batch 4 --seq-len 32 --threads 1 --out tuned
must "$EMO" merge --parent trained --child tuned --router --out merged
for type in bf16 f16; do
    must "$EMO" convert --model merged --dtype $type --max-shard-size 40KB --out merged-$type
    must "$EMO" convert --model pruned --dtype $type --out pruned-$type
done
[ $failures = 0 ] || exit 1
export HF_HUB_OFFLINE=1 HF_HOME=$work/hf HF_MODULES_CACHE=$work/modules TOKENIZERS_PARALLELISM=false
export EMO_LIBRARY=$library PYTHONPATH=$SOURCE/bindings/python
"$python" -B "$SOURCE/tests/e2e/compare_transformers.py" "$code" trained pruned tuned merged merged-bf16 merged-f16 \
    pruned-bf16 pruned-f16 ${EMO_TRANSFORMERS_FOLDERS:-}
