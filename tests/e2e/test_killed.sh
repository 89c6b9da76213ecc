#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Training that is killed (SIGKILL) at random moments and resumed until it is done, over and over: after each kill the
# run folder can be read, and each run ends with the weights and losses of an uninterrupted one. A checkpoint is written
# after every step, so that many kills fall into that.
# usage: test_killed.sh SOURCE_DIR BUILD_DIR [KILLS]
BUILD=${2:?usage: test_killed.sh SOURCE_DIR BUILD_DIR [KILLS]}
KILLS=${3:-5}
. "$(dirname "$0")/tiny_run.sh"
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
tiny_files
train+=(--steps 12 --checkpoint-every 1)
RANDOM=${SEED:-20}
now() { echo $(($(date +%s%N) / 1000000)); }

begin=$(now)
must "${train[@]}" --out whole
span=$(($(now) - begin))
[ "$failures" = 0 ] || exit 1

kills=0
writing=0
early=0
runs=0
while [ $kills -lt "$KILLS" ] && [ $failures = 0 ]; do
    runs=$((runs + 1))
    rm -rf run
    for _ in $(seq 50); do # two kills or three end a run; fifty without an end are a failure
        "${train[@]}" --out run --resume >out 2>err </dev/null &
        process=$!
        delay=$((RANDOM % span))
        sleep $((delay / 1000)).$(printf '%03d' $((delay % 1000)))
        kill -KILL $process 2>/dev/null
        wait $process 2>/dev/null
        code=$?
        readable run
        [ $code = 0 ] && break
        [ $code = 137 ] || fail "a run ended with $code: $(head -n 1 err)"
        kills=$((kills + 1))
        [ $((kills % 20)) != 0 ] || echo "$kills kills so far"
        [ -e run/state/latest ] || early=$((early + 1))
        ls run run/state run/state/data 2>/dev/null | grep -q 'writing-\|\.tmp-' && writing=$((writing + 1))
        [ $failures = 0 ] && [ $kills -lt "$KILLS" ] || break
    done
    must "${train[@]}" --out run --resume
    same whole run
    left=$(ls run run/state run/state/data | grep 'writing-\|\.tmp-')
    [ -z "$left" ] || fail "left in the folder: $left"
done
echo "$kills kills in $runs runs of $span ms: $writing while a file was written, $early before the first checkpoint"
[ $failures = 0 ]
