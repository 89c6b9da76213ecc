#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The emo program from one end to the other on sixty tiny documents: test_cli.sh SOURCE_DIR BUILD_DIR
set -u
BUILD=${2:?usage: test_cli.sh SOURCE_DIR BUILD_DIR}
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
# close A B RELATIVE
close() {
    awk -v a="$1" -v b="$2" -v r="$3" \
        'BEGIN { d = a - b; if (d < 0) d = -d; m = a < 0 ? -a : a; exit !(a != "" && b != "" && d <= r * m) }'
}

parses() {
    command -v python3 >/dev/null || return 0
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$1" 2>/dev/null || fail "$2: not JSON: $(head -c 200 "$1")"
}

# documents COUNT SEED: three domains with words of their own; the same on every machine.
documents() {
    awk -v n="$1" -v seed="$2" 'BEGIN {
        split("river bridge water stone boat shore fish net tide wave oven flour butter sugar knead bake bread crust " \
              "salt yeast court judge law claim appeal statute clause party lease title", word, " ");
        split("river kitchen court", name, " ");
        split("the a of and in to with for by on", glue, " ");
        x = seed;
        for (i = 0; i < n; i++) {
            d = i % 3;
            text = "";
            for (j = 0; j < 60; j++) {
                x = (x * 1103 + 12345) % 65536;
                k = int(x / 7) % 10 + 1;
                text = text (j ? " " : "") (j % 2 ? word[10 * d + k] : glue[k]);
            }
            printf "{\"text\": \"%s.\", \"domain\": \"%s\"}\n", text, name[d + 1];
        }
    }'
}
documents 60 1 >docs.jsonl
documents 9 77 >test.jsonl
gzip -k test.jsonl
echo 'the river of the boat and a stone bridge to the water' >note.txt
cat >config.json <<'END'
{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 9,
 "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 256}
END
sed 's/{/{"vocab_size": 280, "eos_token_id": 5, /' config.json >small.json

# ---- Help and usage ----
must "$EMO" --help
for command in "" tokenizer "tokenizer train" "tokenizer encode" "tokenizer decode" train eval select prune merge \
    export quantize generate bench info mask; do
    # shellcheck disable=SC2086
    must "$EMO" $command --help
    grep -q '^Usage: emo' out || fail "emo $command --help prints no usage"
done
must "$EMO" --version
ends 2 "did you mean 'train'" "$EMO" trian
ends 2 'did you mean --steps' "$EMO" train --stpes 5
ends 2 '^emo train: --data .* required' "$EMO" train --config config.json --out x
ends 2 'one of --steps' "$EMO" train --config config.json --tokenizer t --data docs.jsonl --out x
ends 2 'one of --steps' "$EMO" train --config config.json --tokenizer t --data docs.jsonl --out x --steps 1 --tokens 9
ends 2 'window:N' "$EMO" train --config c --tokenizer t --data d --out x --steps 1 --balance-scope window:0
ends 2 'whole number' "$EMO" train --steps five
ends 2 'needs a value' "$EMO" eval --model --data docs.jsonl
ends 2 'one of --data' "$EMO" eval --model x
ends 2 'usage\|layerwise' "$EMO" select --model x --calibration note.txt --keep 2 --method best --out m.json
ends 2 'one argument too many' "$EMO" info a b
ends 4 'nothing at' "$EMO" info nowhere
ends 4 'nowhere' "$EMO" eval --model nowhere --data docs.jsonl

# Every option that takes a number, as --help lists them: words, nothing, and what no number type holds are refused by
# name; so is what lies below the smallest value.
for command in 'tokenizer train' train eval select prune merge generate info; do
    # shellcheck disable=SC2086
    "$EMO" $command --help >help
    options=$(sed -n 's/^  --\([a-z-]*\) \(N\|K\|T\|X\|A\|M\|F\|S\|ROWS\|P\) .*/\1/p' help | grep -vx 'eval-pool')
    [ -n "$options" ] || fail "emo $command --help lists no option with a number"
    for option in $options; do
        for value in five '' 1e 0x 1,5 99999999999999999999999x -99999999999999999999999; do
            # shellcheck disable=SC2086
            ends 2 "^emo $command: --$option takes a (whole )?number.*, not '$value'" "$EMO" $command --$option "$value"
        done
    done
done

# ---- Tokenizer ----
must "$EMO" tokenizer train --data docs.jsonl --vocab-size 300 --out tok.json
printf 'the river, na\303\257ve \346\227\245\346\234\254\n\n  bread\t' >text
"$EMO" tokenizer encode --tokenizer tok.json <text >ids || fail 'tokenizer encode'
"$EMO" tokenizer decode --tokenizer tok.json <ids >back || fail 'tokenizer decode'
cmp -s text back || fail 'encode and decode do not give the text back'
echo '1 two 3' | "$EMO" tokenizer decode --tokenizer tok.json >out 2>err
[ $? = 3 ] || fail 'a word among the ids is no format error'
must "$EMO" info tok.json --json
parses out 'info of a tokenizer'

# ---- Training ----
common=(--tokenizer tok.json --data docs.jsonl --batch 4 --seq-len 64 --seed 3)
run=("$EMO" train --config config.json "${common[@]}" --valid test.jsonl --pool uniform:2:8 --steps 20 --out model)
must "${run[@]}" --json
parses out 'train'
[ "$(number steps out)" = 20 ] || fail 'train did not do 20 steps'
# Unigrams of this text are far below the uniform distribution's ln 300 = 5.7.
close "$(number loss out)" 3.5 0.5 || fail "a loss of $(number loss out) after 20 steps"
for file in config.json model.safetensors tokenizer.json metrics.jsonl state; do
    [ -e model/$file ] || fail "train left no model/$file"
done
[ "$(grep -c '"loss"' model/metrics.jsonl)" = 20 ] || fail 'metrics.jsonl has not a line for each step'
ends 4 'resume' "${run[@]}"
must "${run[@]}" --resume
must "$EMO" train --config config.json "${common[@]}" --pool uniform:2:8 --steps 5 --out one --threads 1
must "$EMO" train --config config.json "${common[@]}" --pool uniform:2:8 --steps 5 --out two --threads 2 --profile
grep -q '^routing  *backward  *[1-9]' out || fail 'train --profile prints no table of operators'
grep -q 'pool  *uniform:2:8' out || fail 'train does not print its settings'
cmp -s one/model.safetensors two/model.safetensors || fail 'one and two threads give different weights'
router=(--gating sigmoid --score-bias 0.01 --jitter 0.1 --repetition-filter 8 --balance-scope document)
routed=("$EMO" train --config config.json "${common[@]}" --pool mass:0.8:2:8 "${router[@]}" --steps 3 --out routed)
must "${routed[@]}" --json
parses out 'train with options of the router'
grep -q '"gating": "sigmoid"' out || fail 'train --json does not name the gating'
grep -q '"emo_router_gating": "sigmoid"' routed/config.json || fail 'the model does not keep its gating'
[ "$(grep -c '"filtered_rows"' routed/metrics.jsonl)" = 3 ] || fail 'metrics.jsonl does not count filtered rows'
must "${routed[@]}" --resume
ends 5 'jitter' "${routed[@]/#0.1/0.2}" --resume
ends 2 'softmax' "$EMO" train --gating tanh
ends 2 'score-bias' "$EMO" train --score-bias 2
must "$EMO" eval --model routed --data test.jsonl --quiet
must "$EMO" select --model routed --calibration note.txt --keep 4 --out routed.json
must "$EMO" prune --model routed --mask routed.json --out routed-4
grep -q '"emo_router_score_bias": true' routed-4/config.json || fail 'a pruned model loses its score bias'
ends 5 'vocab_size of 280' "$EMO" train --config small.json "${common[@]}" --steps 1 --out x
echo '{"text": 5}' >broken.jsonl
ends 3 'broken.jsonl:1' "$EMO" train --config config.json --tokenizer tok.json --data broken.jsonl --steps 1 --out y
(cat broken.jsonl docs.jsonl && echo 'no JSON') >some.jsonl
ends 3 'some.jsonl:1' "$EMO" tokenizer train --data some.jsonl --vocab-size 300 --out x.json
ends 0 'warning: 2 broken documents were left out' "$EMO" tokenizer train --data some.jsonl --skip-broken \
    --vocab-size 300 --out skipped.json
cmp -s tok.json skipped.json || fail 'leaving broken documents out changes the tokenizer of the others'

# A run that is stopped keeps its steps, and ends where it would have ended.
# stopped FOLDER ARGUMENTS...: trains in FOLDER, stops the run after a few steps; its exit code is in $code
stopped() {
    local out=$1 process
    shift
    "$@" --out "$out" >out 2>err </dev/null &
    process=$!
    for _ in $(seq 300); do
        [ "$(cat "$out/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] && break
        sleep 0.05
    done
    kill -TERM $process 2>/dev/null
    wait $process
    code=$?
}
stopped long "$EMO" train --config config.json "${common[@]}" --steps 1000000
[ $code = 130 ] || fail "a stopped run ends with $code, not 130"
grep -q 'checkpoint' err || fail 'a stopped run does not say where its checkpoint is'
run=("$EMO" train --config config.json "${common[@]}" --pool uniform:2:8 --balance-scope window:4 --steps 300)
must "${run[@]}" --out whole
stopped parts "${run[@]}"
must "${run[@]}" --out parts --resume
cmp -s whole/model.safetensors parts/model.safetensors || fail 'a stopped and resumed run gives other weights'

# ---- Subsets ----
select=("$EMO" select --model model)
must "${select[@]}" --calibration docs.jsonl --domain river --examples 1 --seed 2 --keep 4 --out river.json
grep -q '4 of 9 experts in each of 2' out || fail "select says: $(cat out)"
must "${select[@]}" --calibration note.txt --keep 4 --method usage --out usage.json
must "${select[@]}" --calibration docs.jsonl --domain court --keep 4 --method easy-ep --out court.json --json
parses out 'select'
must "${select[@]}" --keep 4 --method random --seed 5 --out random.json
ends 4 'nosuch' "${select[@]}" --calibration docs.jsonl --domain nosuch --keep 4 --out x.json
ends 2 'keep' "${select[@]}" --calibration note.txt --keep 99 --out x.json

must "$EMO" eval --model model --data test.jsonl --json
parses out 'eval'
cp out full
[ "$(number documents full)" = 9 ] || fail 'eval does not count 9 documents'
for key in documents tokens bytes loss perplexity bits_per_byte; do
    [ -n "$(number $key full)" ] || fail "eval --json has no $key"
done
grep -q '"domains": {"[a-z]*": {"documents": 3' full || fail 'eval --json has no domains'
echo '{"prompt": "the river of", "completion": " the boat", "domain": "river"}' >pair.jsonl
must "$EMO" eval --model model --data pair.jsonl --json
[ "$(number bytes out)" = 9 ] || fail 'eval counts more than the bytes of a completion'
must "$EMO" eval --model model --data test.jsonl.gz --by domain
[ "$(wc -l <out)" = 5 ] || fail 'eval --by domain does not print a heading, three domains and the sum'
must "$EMO" eval --model model --data test.jsonl --domain river --eval-pool 4 --json --memory-budget 20KiB
[ "$(number documents out)" = 3 ] || fail 'eval --domain does not leave 3 documents'
cat >choices.jsonl <<'END'
{"context": "the river of the", "choices": [" boat", " judge"], "answer": 0, "domain": "river", "kind": "easy"}
{"context": "a bread with", "choices": [" statute", " butter"], "answer": 1, "domain": "kitchen", "kind": "easy"}
END
must "$EMO" eval --model model --choices choices.jsonl --json
parses out 'eval --choices'
[ "$(number items out)" = 2 ] || fail 'eval --choices does not count 2 items'
grep -q '"kinds": {"easy": {"items": 2' out || fail 'eval --choices --json has no kinds'

must "$EMO" eval --model model --data test.jsonl --mask river.json --json
cp out masked
must "$EMO" prune --model model --mask river.json --out small
[ -e small/pruning_metadata.json ] || fail 'prune left no pruning_metadata.json'
must "$EMO" eval --model small --data test.jsonl --json
# The same experts see the same tokens; only the order of a token's few terms in a sum may differ.
close "$(number loss masked)" "$(number loss out)" 1e-5 ||
    fail "masked $(number loss masked), pruned $(number loss out)"
close "$(number loss masked)" "$(number loss full)" 1e-9 && fail 'the mask changes nothing'
must "$EMO" merge --parent model --child small --out merged
must "$EMO" eval --model merged --data test.jsonl --json
[ "$(number loss out)" = "$(number loss full)" ] || fail 'merging an untouched child changes the parent'
must "$EMO" train --from small --data docs.jsonl --batch 4 --seq-len 64 --steps 3 --train-only experts --out tuned
must "$EMO" merge --parent model --child tuned --average 0.5 --out averaged
must "$EMO" eval --model averaged --data test.jsonl --json
close "$(number loss out)" "$(number loss full)" 1e-9 && fail 'merging a tuned child changes nothing'
ends 2 'name another folder' "$EMO" prune --model model --mask river.json --out model

# ---- Other forms of a folder ----
must "$EMO" convert --model model --dtype bf16 --max-shard-size 20KB --out bf16
[ -e bf16/model.safetensors.index.json ] && [ ! -e bf16/model.safetensors ] || fail 'convert wrote no shards'
for file in tokenizer.json tokenizer_config.json special_tokens_map.json generation_config.json; do
    cmp -s model/$file bf16/$file || fail "convert changed $file"
done
grep -q '"dtype": "bfloat16"' bf16/config.json || fail 'config.json does not say bfloat16'
must "$EMO" convert --model bf16 --out one --json
parses out 'convert'
must "$EMO" convert --model one --max-shard-size=20KB --out again
for file in bf16/*; do
    cmp -s "$file" "again/${file#bf16/}" || fail "$file changed on its way through one file and back"
done
must "$EMO" eval --model one --data test.jsonl --json
close "$(number loss out)" "$(number loss full)" 0.01 || fail 'the bf16 model has another loss'
ends 2 '5GB' "$EMO" convert --model model --max-shard-size 5XB --out x
ends 2 'name another folder' "$EMO" convert --model model --out model

# ---- Generation ----
generate=(--prompt 'the river of' --tokens 12 --ignore-eos --json)
must "$EMO" generate --model small "${generate[@]}"
parses out 'generate'
grep -o '"tokens": \[[^]]*' out >tokens.small
[ "$(number stop out)" = '"length"' ] || fail "generation stopped by $(number stop out)"
must "$EMO" generate --model model --mask river.json "${generate[@]}"
grep -o '"tokens": \[[^]]*' out | cmp -s - tokens.small || fail 'a load subset and the pruned model go on differently'
must "$EMO" generate --model model --pool prompt:4 --prompt 'the river of' --tokens 5 --temperature 0.9 --top-k 20 \
    --top-p 0.9 --min-p 0.01 --repetition-penalty 1.1 --seed 7 --stop 'zzz'
grep -q '^the river of' out || fail 'generate does not print the prompt first'
ends 2 'prompt:P' "$EMO" generate --model model --pool fixed:4 --prompt x --tokens 2
printf '{"text": "%s"}\n' 'the river of' 'a fish' 'the' 'water and' 'the river of' >many.jsonl
many=(--prompts many.jsonl --pool prompt:4 --tokens 6 --ignore-eos --temperature 0.7 --seed 3)
must "$EMO" generate --model model "${many[@]}" --batch 2 --schedule pool
[ "$(wc -l <out)" = 5 ] || fail "five prompts gave $(wc -l <out) lines"
sort out >many.sorted
must "$EMO" generate --model model "${many[@]}" --batch 1
sort out | cmp -s - many.sorted || fail 'prompts say other things in other batches'
must "$EMO" generate --model model --prompt 'a fish' --pool prompt:4 --tokens 6 --ignore-eos --temperature 0.7 --seed 4 --json
grep -qF "$(grep -o '"text": "[^"]*"' out)" many.sorted || fail 'a prompt says other things alone'
ends 2 'give one of' "$EMO" generate --model model --prompts many.jsonl --prompt x

# ---- Masks ----
must "$EMO" mask complement river.json --out rest.json
must "$EMO" mask union river.json rest.json --out all.json
grep -q '9 of 9 experts' out || fail "a mask and its complement: $(cat out)"
must "$EMO" mask intersect river.json rest.json --out none.json
grep -q '1 of 9 experts' out || fail "a mask and its complement share: $(cat out)"
must "$EMO" mask subtract all.json rest.json --out again.json
cmp -s river.json again.json || fail 'all without the rest is not the mask'
ends 2 'two mask files' "$EMO" mask union river.json --out x.json
echo '{"format": "emo-mask", "version": 1, "layers": [{"experts": 4, "shared": 1, "keep": [0]}]}' >other.json
ends 5 . "$EMO" mask union river.json other.json --out x.json
ends 3 . "$EMO" mask complement config.json --out x.json

# ---- Damaged models ----
cp -r model damaged
printf '\377\377\377\377' | dd of=damaged/model.safetensors bs=1 conv=notrunc status=none \
    seek=$(($(wc -c <damaged/model.safetensors) - 8))
must "$EMO" info damaged
grep -q 'not finite   1 weights' out || fail 'info does not count a NaN'
must "$EMO" info damaged --json
[ "$(number non_finite out)" = 1 ] || fail 'info --json does not count a NaN'
head -c 9000 model/model.safetensors >damaged/model.safetensors
ends 3 'damaged.*model.safetensors' "$EMO" info damaged
must "$EMO" generate --model model --mask none.json --prompt 'the river' --tokens 2
ends 0 'warning: layer 0: 0 routed experts are left' "$EMO" generate --model model --mask none.json --prompt x --tokens 2

# ---- Info ----
for path in model small river.json tok.json docs.jsonl long; do
    must "$EMO" info $path
    [ -s out ] || fail "info $path prints nothing"
    must "$EMO" info $path --json
    parses out "info $path"
done

# ---- GGUF ----
echo 'not a model' >other.gguf
must "$EMO" export --model model --type f32 --out model.gguf
must "$EMO" export --model model --mask river.json --type bf16 --out river.gguf --json
parses out 'export'
must "$EMO" info river.gguf --json
parses out 'info of a GGUF file'
must "$EMO" generate --model model --prompt 'the river' --tokens 6 --ignore-eos
cp out folder.text
must "$EMO" generate --model model.gguf --prompt 'the river' --tokens 6 --ignore-eos
cmp -s out folder.text || fail 'a GGUF file in f32 generates another text than the folder'
must "$EMO" generate --model model.gguf --prompt 'the river' --tokens 6 --ignore-eos --no-map
cmp -s out folder.text || fail 'weights read into memory generate another text than mapped ones'
# Under a memory budget: the same text, with what the cache did; a budget that is no size or too small is a usage error.
for budget in 12KiB '20KiB --cache-policy lfu --no-prefetch' '0.03MiB --cache-policy lru --drop-source'; do
    # shellcheck disable=SC2086
    must "$EMO" generate --model model.gguf --prompt 'the river' --tokens 6 --ignore-eos --memory-budget $budget
    cmp -s out folder.text || fail "with --memory-budget $budget the text is another one"
done
must "$EMO" generate --model model --memory-budget 20KiB "${generate[@]}"
parses out 'generate under a budget'
grep -q '"hit_rate"' out || fail 'generate --json says nothing of the cache'
ends 2 'token chooses' "$EMO" generate --model model --memory-budget 100 --prompt x --tokens 2
ends 2 'bytes such as' "$EMO" generate --model model --memory-budget 2GB --prompt x --tokens 2
ends 2 'bytes such as' "$EMO" generate --model model --memory-budget -1KiB --prompt x --tokens 2
must "$EMO" eval --model river.gguf --data test.jsonl --json
parses out 'eval of a GGUF file'
ends 5 'rows of 16' "$EMO" export --model model --type q8_0 --out x.gguf
ends 3 'no GGUF' "$EMO" info --json other.gguf
ends 2 . "$EMO" export --model model --type q3_k --out x.gguf

# ---- Quantising: sizes and errors; what blocks cannot hold is refused ----
sed 's/"hidden_size": 32, "intermediate_size": 16/"hidden_size": 64, "intermediate_size": 32/' config.json >wide.json
must "$EMO" train --config wide.json --tokenizer tok.json --data docs.jsonl --steps 2 --batch 2 --seq-len 32 --out wide
must "$EMO" quantize --model wide --type q4_0 --head bf16 --shared f32 --out wide.gguf --json
parses out 'quantize'
grep -q '"tensor": "blk.1.ffn_down_exps.weight"' out || fail 'quantize says nothing of the experts'
awk -v r="$(number relative)" 'BEGIN { exit !(r > 0.01 && r < 0.12) }' || fail "q4_0 is off by $(number relative) of the weights"
awk -v a="$(number bytes_before)" -v b="$(number bytes)" 'BEGIN { exit !(a > 3 * b) }' || fail 'q4_0 is not a third of f32'
must "$EMO" quantize --model wide.gguf --type f32 --out again.gguf --json
[ "$(number rmse)" = 0 ] || fail 'f32 of a quantised file differs from it'
must "$EMO" quantize --model model --mask river.json --type bf16 --out river.gguf
grep -q 'error of the weights' out || fail 'quantize prints no error'
must "$EMO" eval --model wide.gguf --data test.jsonl --json
ends 5 'rows of 16' "$EMO" quantize --model model --type q8_0 --out x.gguf
ends 2 'is required' "$EMO" quantize --model model --out x.gguf
ends 2 'is the model itself' "$EMO" quantize --model wide.gguf --type q8_0 --out wide.gguf
[ ! -e x.gguf ] || fail 'a refused model left a file'

# ---- Benchmarks: one operator, generation and training, by turns, beside the limits of the machine ----
must "$EMO" bench --shape tiny --what operators decode train --only linear --rounds 2 --prompt 16 --tokens 2 --json
parses out 'bench'
for word in '"read": {"median"' '"f32": {"median"' '"linear, 16 tokens"' '"decode, 1 token after 16"' '"training step, 4 x 128' \
    '"forward and backward of it"' '"share": {"median"' '"operator": "routing"'; do
    grep -qF "$word" out || fail "bench says nothing of $word"
done
! grep -q 'attention, ' out || fail 'bench --only linear times attention'
must "$EMO" bench --shape tiny --weights bf16 --what prefill --rounds 1 --prompt 8 --tokens 1 --save saved
must "$EMO" bench --model saved --what layer --rounds 1 --prompt 8 --tokens 1
must "$EMO" bench --shape tiny --weights q4_0 --what decode --rounds 1 --prompt 8 --tokens 1 --compute bf16
grep -q 'decode, 1 token after 8' out || fail 'bench prints no line for decode'
must "$EMO" bench --model wide.gguf --what prefill --rounds 1 --prompt 8 --tokens 1
ends 5 'q4_0|quantised' "$EMO" bench --model wide.gguf --what train --rounds 1 --prompt 8 --tokens 1
ends 2 'positions' "$EMO" bench --shape tiny --what decode --prompt 4000
ends 2 'not .fast' "$EMO" bench --shape tiny --what fast
ends 2 'one of --shape' "$EMO" bench --shape tiny --model wide

if [ $failures -gt 0 ]; then
    echo "$failures failed"
    exit 1
fi
echo 'all passed'
