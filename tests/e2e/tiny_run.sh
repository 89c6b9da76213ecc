# SPDX-License-Identifier: Apache-2.0
# A tiny run of the emo program, for scripts that make it fail; sourced by bash, after BUILD was set. Goes to a folder of
# its own and makes docs.jsonl, tok.json, config.json; the command is in the array `train`, without steps and folder.
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

# readable RUN: the newest checkpoint and the exported model of a run folder can be read, as far as they are there; a
# checkpoint is there only with its exported model.
readable() {
    local run=$1 latest
    if [ -e "$run/state/latest" ]; then
        latest=$(cat "$run/state/latest")
        "$EMO" info "$run/state/$latest" >info.out 2>&1 || fail "$run/state/$latest cannot be read: $(tail -n 1 info.out)"
        "$EMO" info "$run" >info.out 2>&1 || fail "$run cannot be read: $(tail -n 1 info.out)"
    elif [ -e "$run/model.safetensors" ]; then
        "$EMO" info "$run" >info.out 2>&1 || fail "$run cannot be read: $(tail -n 1 info.out)"
    fi
}

# losses RUN: its metrics without the times.
losses() { sed 's/"seconds": [^,]*, "tokens_per_second": [^,}]*//' "$1/metrics.jsonl"; }

# same RUN RUN: the same weights and losses, bit for bit.
same() {
    cmp -s "$1/model.safetensors" "$2/model.safetensors" || fail "$2 has other weights than $1"
    [ "$(losses "$1")" = "$(losses "$2")" ] || fail "$2 has other losses than $1"
}

tiny_files() {
    awk 'BEGIN {
        split("river bridge water stone boat shore fish net tide wave oven flour butter sugar knead bake bread crust", w, " ");
        x = 7;
        for (i = 0; i < 40; i++) {
            text = "";
            for (j = 0; j < 40; j++) {
                x = (x * 1103 + 12345) % 65536;
                text = text (j ? " " : "") w[int(x / 7) % 18 + 1];
            }
            printf "{\"text\": \"%s.\"}\n", text;
        }
    }' >docs.jsonl
    echo '{"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 9,
 "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 256}' >config.json
    must "$EMO" tokenizer train --data docs.jsonl --vocab-size 280 --out tok.json
}
train=("$EMO" train --config config.json --tokenizer tok.json --data docs.jsonl --pool uniform:2:8 --batch 4
    --seq-len 32 --seed 3 --threads 1 --quiet)
