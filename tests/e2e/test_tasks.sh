#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emo eval --tasks: every block of docs/evaluation.md by a dry run and on a tiny model; tables, JSON, items, mistakes.
# usage: test_tasks.sh SOURCE_DIR BUILD_DIR
set -u
SOURCE=$(realpath "${1:?usage: test_tasks.sh SOURCE_DIR BUILD_DIR}")
BUILD=${2:?usage: test_tasks.sh SOURCE_DIR BUILD_DIR}
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1

# ---- The blocks of the page: ```json FILE and ```jsonl FILE ----
awk '/^```jsonl? / { file = $2; next } /^```/ { file = ""; next } file != "" { print > file }' "$SOURCE/docs/evaluation.md"
blocks=$(grep -c '^```json ' "$SOURCE/docs/evaluation.md")
[ "$blocks" -ge 5 ] || fail "found $blocks task files in the page"
[ "$(grep -cE '^```json *$' "$SOURCE/docs/evaluation.md")" = 0 ] || fail 'a JSON block of the page has no file name'
i=0
while [ $i -lt 12 ]; do
    printf '{"text": "the river rose and the bridge was under water, question and answer: %s or no"}\n' "$i"
    i=$((i + 1))
done >docs.jsonl
cat >config.json <<'JSON'
{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 9,
 "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 1024}
JSON
must "$EMO" tokenizer train --data docs.jsonl --vocab-size 280 --out tok.json
must "$EMO" train --config config.json --tokenizer tok.json --data docs.jsonl --batch 2 --seq-len 64 --steps 2 --out model
ran=0
for file in *.json; do
    case $file in config.json | tok.json) continue ;; esac
    must "$EMO" eval --tasks "$file" --dry-run
    grep -q "^The first item's prompt" out || fail "$file: a dry run shows no prompt"
    must "$EMO" eval --tasks "$file" --dry-run --json
    must "$EMO" eval --tasks "$file" --model model --context 1024 --keep all,50% --method random --limit 2
    grep -q 'random 50 %' out || fail "$file: no column for half of the experts: $(head -n 1 out)"
    ran=$((ran + 1))
done
[ $ran = "$blocks" ] || fail "$ran of $blocks task files were tried"

# What a dry run shows is the prompt itself.
must "$EMO" eval --tasks mmlu.json --dry-run
tr '\n' '~' <out >line
grep -qF 'about elementary mathematics.~~One and one?~A. 1~B. 2~C. 3~D. 4~Answer: B~~Half of six?' line ||
    fail 'the five examples of MMLU are not in the prompt'
grep -qF 'Two and two?~A. 3~B. 4~C. 5~D. 6~Answer:[ A] [ B] [ C] [ D]' line || fail 'the question of MMLU is not in the prompt'
must "$EMO" eval --tasks generation.json --dry-run
grep -q '^gsm8k: generation, 1 items, 2 validation items, 2 examples' out || fail 'a dry run does not count items'

# ---- Columns, groups, items, masks ----
must "$EMO" select --model model --method random --keep 5 --seed 3 --out five.json
must "$EMO" eval --tasks mc9.json --model model --keep all,50%,3 --method usage --examples 1 --seed 3 --random 2 \
    --mask five.json --items items.jsonl --json
cp out first
for words in '"name": "all", "kind": "all", "share": 1' '"name": "usage 50 %", "kind": "subset", "share": 0.5, "keep": 5' \
    '"name": "random 25 %", "kind": "random", "share": 0.25, "keep": 3, "draws": 2' '"name": "five.json", "kind": "mask"' \
    '"name": "MC9", "scores"' '"accuracy_character"'; do
    grep -qF "$words" out || fail "eval --tasks --json has no $words"
done
[ "$(wc -l <items.jsonl)" = $((9 * 6)) ] || fail "--items wrote $(wc -l <items.jsonl) lines"
grep -q '"task": "boolq", "column": "five.json", "source": "boolq.jsonl", "line": 1' items.jsonl || fail 'items lack their place'
if command -v python3 >/dev/null; then
    python3 -c 'import json; json.load(open("first")); [json.loads(l) for l in open("items.jsonl")]' || fail 'not JSON'
fi
must "$EMO" eval --tasks mc9.json --model model --keep all,50%,3 --method usage --examples 1 --seed 3 --random 2 \
    --mask five.json --threads 2 --json
cmp -s out first || fail 'two threads give other scores'
# The first random subset is that of emo select with the seed.
must "$EMO" eval --tasks mc9.json --model model --keep 5 --method random --random 1 --seed 3 --mask five.json --json
[ "$(grep -o '"value": [^,]*' out | awk 'NR % 2 == 1' | tr '\n' ' ')" = "$(grep -o '"value": [^,]*' out | awk 'NR % 2 == 0' | tr '\n' ' ')" ] ||
    fail 'a random column differs from its mask'
must "$EMO" eval --tasks mc9.json --model model
head -n 1 out | grep -Eq '^task +metric +items +all$' || fail "the heading is: $(head -n 1 out)"
grep -Eq '^\[MC9\] +mean of 9 +9 ' out || fail 'the group has no row'

# ---- Mistakes ----
ends 2 'give one of' "$EMO" eval --tasks mc9.json --data docs.jsonl --model model
ends 2 '--model DIR is required' "$EMO" eval --tasks mc9.json
ends 2 "--by does not go with --tasks" "$EMO" eval --tasks mc9.json --model model --by domain
ends 2 "--keep goes with --tasks" "$EMO" eval --data docs.jsonl --model model --keep all
ends 2 "one --mask FILE" "$EMO" eval --data docs.jsonl --model model --mask five.json --mask five.json
ends 2 "shares such as 25%" "$EMO" eval --tasks mc9.json --model model --keep all,x
ends 2 "shares such as 25%" "$EMO" eval --tasks mc9.json --model model --keep 101%
ends 2 'keep' "$EMO" eval --tasks mc9.json --model model --keep 10
ends 2 'no "validation" items' "$EMO" eval --tasks texts.json --model model --keep 50%
mkdir elsewhere && cp texts.json elsewhere
ends 4 'elsewhere/texts.jsonl' "$EMO" eval --tasks elsewhere/texts.json --model model
sed 's/"prompt"/"promt"/' texts.json >bad.json
ends 3 'tasks\[0\] \(texts\): unknown key "promt"' "$EMO" eval --tasks bad.json --dry-run
echo '{"title": "x"}' >>texts.jsonl
ends 3 'texts.jsonl:2: there is no field "body"' "$EMO" eval --tasks texts.json --dry-run

if [ $failures -gt 0 ]; then
    echo "$failures failed"
    exit 1
fi
echo "all passed: $blocks task files of the page"
