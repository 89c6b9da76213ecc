#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_tokenizers.sh SOURCE BUILD: ids and texts are those of Hugging Face's `tokenizers`, where that package is there.
# With EMO_TOKENIZERS_FULL=1 on every text of ../shared/corpus and every code point in several surroundings (minutes).
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../support/library.sh"
need_library "$2"
python3 -c 'import tokenizers' 2>/dev/null || { echo "skipped: pip install tokenizers"; exit 77; }
args=()
corpus=$1/../shared/corpus
if [ -n "${EMO_TOKENIZERS_FULL-}" ]; then
  args+=(--full)
  for file in "$corpus"/{train,valid,test,mc}.jsonl.gz; do [ ! -e "$file" ] || args+=(--corpus "$file"); done
elif [ -e "$corpus/valid.jsonl.gz" ]; then
  args+=(--corpus "$corpus/valid.jsonl.gz")
fi
exec python3 -B "$1/tests/e2e/compare_tokenizers.py" "$library" "${args[@]}"
