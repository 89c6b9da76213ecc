#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Recipes: the released shapes by a dry run, a small one that trains as its options do. SOURCE_DIR BUILD_DIR
set -u
SOURCE=$(realpath "${1:?usage: test_recipes.sh SOURCE_DIR BUILD_DIR}")
BUILD=${2:?usage: test_recipes.sh SOURCE_DIR BUILD_DIR}
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1

# name, parameters, active without embeddings, tokens, steps, pool
recipes='emo_1b14b_1t 13568641024 1078003712 1000000000000 238419 8
emo_1b14b_1t_emoanneal 13568641024 1078003712 50000000000 11921 8
stdmoe_1b14b_1t 13568641024 1078003712 1000000000000 238419 none
stdmoe_1b14b_1t_stdanneal 13568641024 1078003712 50000000000 11921 none
stdmoe_1b14b_1t_emoanneal 13568641024 1078003712 50000000000 11921 8
emo_1b14b_130b 13568641024 1078003712 130000000000 30995 8
stdmoe_1b14b_130b 13568641024 1078003712 130000000000 30995 none
stdmoe_1b4b_130b 3901818880 1074857984 130000000000 30995 none
dense_1b_130b 1484851200 1073809408 130000000000 30995 none'
[ "$(ls "$SOURCE"/examples/recipes/*.json | wc -l)" = 9 ] || fail 'there are not nine recipes'
while read -r name parameters active tokens steps pool; do
    must "$EMO" train --recipe "$SOURCE/examples/recipes/$name.json" --dry-run --json
    [ "$(number parameters)" = "$parameters" ] || fail "$name: $(number parameters) parameters, not $parameters"
    [ "$(number active_without_embeddings)" = "$active" ] || fail "$name: $(number active_without_embeddings) active"
    [ "$(number active)" = $((active + 2 * 100352 * 2048)) ] || fail "$name: $(number active) active with embeddings"
    [ "$(number tokens)" = "$tokens" ] && [ "$(number steps)" = "$steps" ] || fail "$name: $(number steps) steps"
    [ "$(number tokens_per_step)" = 4194304 ] || fail "$name: $(number tokens_per_step) tokens a step"
    number pool | grep -q "$pool" || fail "$name: pool $(number pool)"
    # 6 FLOPs a weight (the head, but no lookup) and 12 layers x width x half a row
    awk -v got="$(number training_flops_per_token)" -v a="$active" 'BEGIN {
        want = 6 * (a + 100352 * 2048) + 12 * 16 * 2048 * 2048; d = got - want; exit !(d * d < 1e-10 * want * want) }' ||
        fail "$name: $(number training_flops_per_token) FLOPs a token"
    awk -v got="$(number training_bytes)" -v p="$parameters" 'BEGIN { exit !(got == 16 * p) }' || fail "$name: memory"
    case $name in
    *anneal) ends 2 'give --from' "$EMO" train --recipe "$SOURCE/examples/recipes/$name.json" --data d --out x ;;
    esac
done <<<"$recipes"
must "$EMO" train --recipe "$SOURCE/examples/recipes/emo_1b14b_1t.json" --dry-run
grep -q '13.6B (13.2B without embeddings)' out || fail "the dry run in words: $(grep parameters out)"

# A recipe trains as the same options do; the command line wins.
for i in $(seq 30); do echo "{\"text\": \"boat $i on river $i, bread $i of court $i\"}"; done >docs.jsonl
must "$EMO" tokenizer train --data docs.jsonl --vocab-size 290 --out tok.json
echo '{"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_experts": 5,
 "num_experts_per_tok": 2}' >config.json
cat >small.json <<'END'
{"format": "emo-recipe", "version": 1, "name": "small", "later": {"unknown": [1, "}"]},
 "config": {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_experts": 5, "num_experts_per_tok": 2},
 "train": {"data": ["docs.jsonl"], "pool": "uniform:2:4", "steps": 3, "batch": 4, "seq-len": 16, "lr": 0.01,
           "skip-broken": false, "tokenizer": "tok.json"}}
END
must "$EMO" train --recipe small.json --out a
must "$EMO" train --config config.json --tokenizer tok.json --data docs.jsonl --pool uniform:2:4 --steps 3 --batch 4 \
    --seq-len 16 --lr 0.01 --out b
cmp -s a/model.safetensors b/model.safetensors || fail 'a recipe trains otherwise than its options'
must "$EMO" train --recipe small.json --dry-run --json --tokens 640 --lr 0.5
[ "$(number tokens)" = 640 ] && [ "$(number lr)" = 0.5 ] || fail 'the command line does not win over the recipe'

sed 's/"lr"/"learning"/' small.json >bad.json
ends 3 'learning' "$EMO" train --recipe bad.json --dry-run
sed 's/0.01/"fast"/' small.json >bad.json
ends 3 'lr' "$EMO" train --recipe bad.json --dry-run
sed 's/emo-recipe/other/' small.json >bad.json
ends 3 'emo-recipe' "$EMO" train --recipe bad.json --dry-run
sed 's/"version": 1/"version": 2/' small.json >bad.json
ends 5 'version 2' "$EMO" train --recipe bad.json --dry-run
head -c 200 small.json >bad.json
ends 3 'bad.json' "$EMO" train --recipe bad.json --dry-run
sed 's/"hidden_size": 16/"hidden_size": -1/' small.json >bad.json
ends 3 'hidden_size' "$EMO" train --recipe bad.json --dry-run
ends 4 'nosuch' "$EMO" train --recipe nosuch.json --dry-run

if [ $failures -gt 0 ]; then
    echo "$failures failed"
    exit 1
fi
echo 'all passed'
