#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Searches for bytes that make the library crash, read beyond its memory, hang or break a promise: builds tests/fuzz with
# clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs one target after the other, in rounds of
# at most two minutes, from the seeds in tests/fuzz/corpus.
# usage: scripts/fuzz.sh [--seconds N | --minutes N | --hours N] [--out DIR] [--within SECONDS] [--status] [TARGET...]
#   --seconds N   for each target (60); --minutes N the same in minutes; --hours N: in all, shared among the targets
#   --out DIR     a search that can be stopped (Ctrl-C, SIGTERM) and goes on where it was: the time counts from the first
#                 call with this folder, which holds what was learnt (corpus), what was found (found), times and logs
#   --within N    end after so many seconds, building included, and give each target less where that is needed
#   --status      print the table of what --out DIR holds, search nothing
# Without --out the time counts from now, and what is learnt is kept in build-fuzz.
# exit status: 0 nothing found; 1 something found, or building failed; 2 wrong usage; 77 no clang with libFuzzer, or no
# time was left; 130 stopped
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
began=$SECONDS
seconds=60
hours=
within=
out=
only_status=0
targets=()
usage() { sed -n '/^# usage/,/^set -u/{s/^# \{0,1\}//p}' "$root/scripts/fuzz.sh"; }
number() { # OPTION VALUE
    case $2 in
    '' | *[!0-9]* | ????????*) echo "fuzz.sh: $1 takes a whole number, not '$2'" >&2 && exit 2 ;;
    esac
}
while [ $# -gt 0 ]; do
    case $1 in
    --seconds | --minutes | --hours | --within)
        number "$1" "${2-}"
        case $1 in
        --seconds) seconds=$2 hours= ;;
        --minutes) seconds=$(($2 * 60)) hours= ;;
        --hours) hours=$2 ;;
        --within) within=$2 ;;
        esac
        shift
        ;;
    --out)
        out=${2-}
        [ -n "$out" ] || { echo "fuzz.sh: --out takes a folder" >&2 && exit 2; }
        shift
        ;;
    --status) only_status=1 ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) targets+=("$1") ;;
    esac
    shift
done
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(ls tests/fuzz/corpus)
fi
for target in "${targets[@]}"; do
    [ -d "tests/fuzz/corpus/$target" ] || { echo "fuzz.sh: there is no target '$target' (see tests/fuzz/corpus)" >&2 && exit 2; }
done
[ -z "$hours" ] || seconds=$((hours * 3600 / ${#targets[@]}))
[ $only_status = 0 ] || [ -n "$out" ] || { echo "fuzz.sh: --status takes an --out folder" >&2 && exit 2; }
state=${out:-build-fuzz}
mkdir -p "$state/corpus" "$state/found" "$state/time" "$state/log" || exit 1

# The time a target has had so far and its executions: "seconds executions edges", in state/time/TARGET.
so_far() {
    local had=0 runs=0 edges=0
    [ ! -e "$state/time/$1" ] || read -r had runs edges <"$state/time/$1"
    echo "$((had + 0)) $((runs + 0)) $((edges + 0))"
}
table() {
    local target had runs edges all=0 all_runs=0 found
    printf '%-12s %9s %12s %7s  %s\n' target seconds executions edges found
    for target in "${targets[@]}"; do
        read -r had runs edges < <(so_far "$target")
        found=$(find "$state/found" -name "$target-*" | wc -l)
        printf '%-12s %9d %12d %7d  %s\n' "$target" "$had" "$runs" "$edges" "$([ "$found" = 0 ] && echo nothing || echo "$found")"
        all=$((all + had)) all_runs=$((all_runs + runs))
    done
    printf '%-12s %9d %12d\n' all $all $all_runs
}
if [ $only_status = 1 ]; then
    table
    exit 0
fi
exec 8>"$state/lock"
flock -n 8 || { echo "fuzz.sh: another search is under way in $state" >&2 && exit 2; }

scratch=
running=
stopped=0
cleanup() { [ -z "$scratch" ] || rm -rf "$scratch"; }
stop() {
    stopped=1
    [ -z "$running" ] || kill -INT "$running" 2>/dev/null
}
trap cleanup EXIT
trap stop INT TERM
# Files are written at every execution: in memory where there is a place for them.
scratch=$(mktemp -d -p /dev/shm emo-fuzz.XXXXXX 2>/dev/null || mktemp -d) || exit 1

echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return n > 0 && d == 0; }' >"$scratch/probe.c"
if ! clang -fsanitize=fuzzer,address,undefined "$scratch/probe.c" -o "$scratch/probe" 2>"$scratch/err"; then
    echo "fuzz.sh: there is no clang with libFuzzer here; nothing was searched ($(head -n 1 "$scratch/err"))"
    echo "The seeds are replayed without it: ctest --test-dir build -R '^fuzz_'"
    exit 77
fi
left() { echo $((within - (SECONDS - began))); }
configure() {
    local generator=()
    if [ ! -e build-fuzz/CMakeCache.txt ] && command -v ninja >/dev/null 2>&1; then
        generator=(-G Ninja)
    fi
    cmake "${generator[@]}" -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DEMO_BUILD_TESTS=ON -DEMO_FUZZ=ON -DEMO_BUILD_SHARED=OFF -DEMO_BUILD_CLI=OFF -DEMO_BUILD_EXAMPLES=OFF \
        -DEMO_SANITIZE=address,undefined,fuzzer-no-link
}
build() {
    configure || return 1
    # CMake forgets every option when another compiler is found under the name.
    grep -q '^EMO_FUZZ:BOOL=ON' build-fuzz/CMakeCache.txt || configure || return 1
    timeout "$([ -n "$within" ] && left || echo 0)" cmake --build build-fuzz --parallel "$(nproc)" --target emo_fuzz
}
mkdir -p build-fuzz
build >build-fuzz/build.log 2>&1
case $? in
0) ;;
124)
    echo "fuzz.sh: building took longer than the $within seconds there are; nothing was searched"
    exit 77
    ;;
*)
    [ $stopped = 0 ] || exit 130
    echo "fuzz.sh: building failed:"
    grep -E 'error|undefined' build-fuzz/build.log | head -n 20
    exit 1
    ;;
esac
if [ -n "$within" ]; then
    each=$((($(left) - 3) / ${#targets[@]} - 1)) # a target needs a moment to begin and to end
    [ "$each" -ge 1 ] || { echo "fuzz.sh: building left no time of the $within seconds; nothing was searched" && exit 77; }
    [ "$each" -ge "$seconds" ] || seconds=$each
fi
[ -n "$out" ] || rm -f "$state"/time/*

export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TMPDIR=$scratch

# slice TARGET SECONDS: searches; 1 when something was found. What was done counts also when it is stopped. A killed
# search loses one slice of its count at most, never what it learnt.
slice() {
    local target=$1 log=$state/log/$1.log had runs edges rc start=$SECONDS new
    read -r had runs edges < <(so_far "$target")
    mkdir -p "$state/corpus/$target"
    build-fuzz/tests/emo_fuzz "$target" -max_total_time="$2" -timeout=60 -rss_limit_mb=2048 -max_len=16384 \
        -print_final_stats=1 -artifact_prefix="$state/found/$target-" "$state/corpus/$target" \
        "tests/fuzz/corpus/$target" >"$log" 2>&1 8>&- &
    running=$!
    wait "$running"
    rc=$?
    while kill -0 "$running" 2>/dev/null; do # a signal ended the wait, not the search
        wait "$running"
        rc=$?
    done
    running=
    new=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    [ -n "$new" ] || new=$(sed -n 's/^#\([0-9]*\)\t.*/\1/p' "$log" | tail -n 1)
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | sed 's/cov: //')
    echo "$((had + SECONDS - start)) $((runs + ${new:-0})) ${edges:-0}" >"$state/time/$target.new"
    mv "$state/time/$target.new" "$state/time/$target"
    [ $stopped = 1 ] || [ $rc = 0 ]
}

# Always the target that had least so far, so that a search that is stopped has been fair.
found=0
given_up=' '
while [ $stopped = 0 ]; do
    next=
    for target in "${targets[@]}"; do
        case $given_up in *" $target "*) continue ;; esac
        read -r had _ < <(so_far "$target")
        if [ "$had" -lt "$seconds" ] && { [ -z "$next" ] || [ "$had" -lt "$least" ]; }; then
            next=$target least=$had
        fi
    done
    [ -n "$next" ] || break
    time=$((seconds - least))
    [ $time -le 120 ] || time=120
    if ! slice "$next" "$time"; then
        found=1
        given_up="$given_up$next "
        echo "$next: FOUND something; the end of $state/log/$next.log:"
        tail -n 30 "$state/log/$next.log"
    elif [ -n "$out" ]; then
        echo "$(date +%H:%M:%S) $next: $(so_far "$next" | sed 's/\(.*\) \(.*\) \(.*\)/\1 of '"$seconds"' s, \2 executions, \3 edges/')"
    fi
done
table
[ $stopped = 0 ] || { echo "stopped; the same call goes on" && exit 130; }
exit $found
