#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The emo program with --device cuda on the simulator: trains, stops, resumes, evaluates, selects, generates; and what it
# says where no device is to be had. usage: test_cuda_program.sh SOURCE_DIR BUILD_DIR [PLUGIN]
BUILD=$2
PLUGIN=$(realpath "${3-$2/libemo_cuda_sim.so}" 2>/dev/null)
[ -e "$PLUGIN" ] || exit 77
. "$(dirname "$0")/tiny_run.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
tiny_files
cuda=(--device cuda --backend "$PLUGIN")

must "${train[@]}" --steps 4 --out cpu
must "${train[@]}" "${cuda[@]}" --steps 4 --out once
must "${train[@]}" "${cuda[@]}" --steps 4 --out twice
same once twice
for out in cpu once; do
    must "$EMO" eval --model $out --data docs.jsonl --json
    eval "loss_$out=$(number loss)"
done
must "$EMO" eval --model once --data docs.jsonl --json "${cuda[@]}"
loss_on_device=$(number loss)
# the losses of four steps from the same start, and of the same weights, agree to f32 rounding
awk -v a="$loss_cpu" -v b="$loss_once" -v c="$loss_on_device" 'BEGIN {
    d = a > b ? a - b : b - a; e = b > c ? b - c : c - b; exit !(a > 0 && d < 1e-3 && e < 1e-4) }' ||
    fail "losses $loss_cpu (trained on the CPU), $loss_once (on the device), $loss_on_device (evaluated there)"

# bf16, a checkpoint on the device, and on from it
must "${train[@]}" "${cuda[@]}" --compute bf16 --steps 3 --checkpoint-every 2 --out bf16
must "${train[@]}" "${cuda[@]}" --compute bf16 --steps 3 --checkpoint-every 2 --out bf16 --resume
readable bf16

must "$EMO" select --model once --calibration docs.jsonl --keep 5 --out mask.json "${cuda[@]}"
must "$EMO" generate --model once --mask mask.json --prompt "river" --tokens 8 --threads 1 "${cuda[@]}"
cp out on_device
must "$EMO" generate --model once --mask mask.json --prompt "river" --tokens 8 --threads 1
cmp -s out on_device || fail "greedy text is '$(cat on_device)' on the device, '$(cat out)' on the CPU"

# experts within a budget of the device's memory: five of a layer's eight, and a prompt's pool
for pool in "" "--pool prompt:4"; do
    must "$EMO" generate --model once --prompt "river" --tokens 8 --threads 1 $pool "${cuda[@]}" --json
    cp out whole
    must "$EMO" generate --model once --prompt "river" --tokens 8 --threads 1 $pool "${cuda[@]}" --json --memory-budget 30KiB
    python3 -c 'import json, sys
a, b = (json.load(open(name)) for name in ("whole", "out"))
c = b["cache"]
sys.exit(not (a["text"] == b["text"] and a["logprobs"] == b["logprobs"] and c["misses"] + c["read_ahead"] > 0 and
              0 < c["capacity"] < c["experts"]))' || fail "under a budget${pool:+, $pool}: '$(cat out)' for '$(cat whole)'"
done

ends 4 'no such file' "$EMO" eval --model once --data docs.jsonl --device cuda --backend nowhere.so
ends 4 '--backend' "$EMO" eval --model once --data docs.jsonl --device nothing
ends 4 "there is no device 'cuda:9'; there are: cpu, cuda" "$EMO" eval --model once --data docs.jsonl --device cuda:9 \
    --backend "$PLUGIN"
ends 4 'cuBLASLt is missing: libcublasLt.* cannot be opened in' "$EMO" eval --model once --data docs.jsonl "${cuda[@]}" \
    --cuda-libraries once
ends 4 'there is no such folder' "$EMO" eval --model once --data docs.jsonl "${cuda[@]}" --cuda-libraries nowhere
exit $((failures > 0))
