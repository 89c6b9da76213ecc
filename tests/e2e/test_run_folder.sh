#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What can happen to a run folder: two processes, a killed one's lock, a folder that is moved away or removed, a full
# disk, a file that may not grow, a read-only file system. A message and an exit code, and the checkpoint before stays.
# usage: test_run_folder.sh SOURCE_DIR BUILD_DIR
BUILD=${2:?usage: test_run_folder.sh SOURCE_DIR BUILD_DIR}
# Full disks and read-only ones need file systems of their own, which a name space of its own may have.
if [ -z "${EMO_IN_NAMESPACE-}" ]; then
    export EMO_IN_NAMESPACE=no
    for how in -m -rm; do
        if unshare $how mount -t tmpfs none /tmp 2>/dev/null; then
            EMO_IN_NAMESPACE=yes exec unshare $how bash "$0" "$@"
        fi
    done
fi
. "$(dirname "$0")/tiny_run.sh"
WORK=$(mktemp -d) || exit 1
stop() {
    umount "$WORK/disk" 2>/dev/null
    rm -rf "$WORK"
}
trap stop EXIT
cd "$WORK" || exit 1
tiny_files

# background RUN: a run without an end; returns once it has gone on by some steps. Its id is in $process.
background() {
    local run=$1 before
    before=$(cat "$run/metrics.jsonl" 2>/dev/null | wc -l)
    "${train[@]}" --steps 1000000 --checkpoint-every 2 --out "$run" --resume >out.bg 2>err.bg </dev/null &
    process=$!
    for _ in $(seq 1200); do
        [ "$(cat "$run/metrics.jsonl" 2>/dev/null | wc -l)" -ge $((before + 4)) ] && return
        kill -0 $process 2>/dev/null || break
        sleep 0.05
    done
    fail "the run in $run does not go on: $(tail -n 1 err.bg)"
}
killed() {
    kill -KILL $process 2>/dev/null
    wait $process 2>/dev/null
}

# ---- Two processes, and the lock of a dead one ----
background busy
ends 1 'busy/state/lock: another run holds this lock' "${train[@]}" --steps 1000000 --checkpoint-every 2 --out busy --resume
kill -0 $process || fail 'the second process ended the first'
killed
readable busy
background busy
killed
readable busy

# ---- The folder is moved away; removed ----
background here
mv here there
wait $process
code=$?
[ $code = 4 ] || fail "a run whose folder is moved away ends with $code: $(tail -n 1 err.bg)"
grep -q 'removed, moved or replaced\|no such file' err.bg || fail "it says $(tail -n 1 err.bg)"
[ ! -e here/state ] || fail 'the run was begun again at the old place'
readable there
background there
killed
for _ in $(seq 20); do rm -rf there; done
background gone
mv gone rubbish && rm -rf rubbish
wait $process
code=$?
[ $code = 4 ] || fail "a run whose folder is removed ends with $code: $(tail -n 1 err.bg)"

# ---- A file that may not grow, everywhere; it is like a full disk ----
steps=(--steps 8 --checkpoint-every 2)
must "${train[@]}" "${steps[@]}" --out whole
ends 1 'longer than is allowed' bash -c 'ulimit -f 40; exec "$@"' limited "${train[@]}" "${steps[@]}" --out grown
readable grown
must "${train[@]}" "${steps[@]}" --out grown --resume
same whole grown

if [ "$EMO_IN_NAMESPACE" = yes ]; then
    # ---- A full disk: in the middle of the first checkpoint, and of a later one ----
    mkdir disk
    need=$(du -sk whole | cut -f 1)
    for share in 30 125; do
        mount -t tmpfs -o size=$((need * share / 100))k none disk || fail 'no tmpfs'
        ends 1 'no space left' "${train[@]}" "${steps[@]}" --out disk/run
        readable disk/run
        latest=$(cat disk/run/state/latest 2>/dev/null)
        case $share in
        30) [ -z "$latest" ] || fail 'the disk was not full at the first checkpoint' ;;
        *) [ -n "$latest" ] || fail 'the disk was full before the second checkpoint' ;;
        esac
        ends 1 'no space left' "${train[@]}" "${steps[@]}" --out disk/run --resume
        [ "$(cat disk/run/state/latest 2>/dev/null)" = "$latest" ] || fail 'the checkpoint has changed'
        readable disk/run
        mount -o remount,size=$((need * 4))k disk
        must "${train[@]}" "${steps[@]}" --out disk/run --resume
        same whole disk/run
        [ $share = 125 ] || umount disk
    done
    # ---- A read-only file system: reading works, training says so ----
    mount -o remount,ro disk || fail 'cannot be made read-only'
    must "$EMO" eval --model disk/run --data docs.jsonl
    readable disk/run
    ends 1 'read-only' "${train[@]}" "${steps[@]}" --out disk/run --resume
    ends 1 'read-only' "${train[@]}" "${steps[@]}" --out disk/other
    must "$EMO" select --model disk/run --method random --keep 4 --out mask.json
    ends 1 'read-only' "$EMO" prune --model disk/run --mask mask.json --out disk/small
    readable disk/run
    umount disk
else
    echo 'no file system may be mounted here: full and read-only disks are left out'
fi
# ---- A folder without permission to write (root may write all the same) ----
if [ "$(id -u)" != 0 ]; then
    background closed
    killed
    chmod 555 closed closed/state
    ends 1 'permission denied' "${train[@]}" --steps 1000000 --checkpoint-every 2 --out closed --resume
    readable closed
    ends 1 'permission denied' "${train[@]}" "${steps[@]}" --out closed/new
    chmod 755 closed closed/state
fi
echo "$failures failures"
[ $failures = 0 ]
