# SPDX-License-Identifier: Apache-2.0
# Shell functions the scripts share; sourced by bash, after `root` was set to the top of the source tree.

# emo_build DIR [cmake options]: configures and builds (all, or the targets in the array `emo_targets`), quietly unless
# something goes wrong.
emo_build() {
    local dir=$1 log
    shift
    mkdir -p "$dir"
    log=$dir/build.log
    local generator=()
    if [ ! -e "$dir/CMakeCache.txt" ] && command -v ninja >/dev/null 2>&1; then
        generator=(-G Ninja)
    fi
    if ! cmake "${generator[@]}" -S "$root" -B "$dir" "$@" >"$log" 2>&1; then
        echo "configuring $dir failed:"
        tail -n 40 "$log"
        return 1
    fi
    if ! cmake --build "$dir" --parallel "$(nproc)" ${emo_targets:+--target "${emo_targets[@]}"} >>"$log" 2>&1; then
        echo "building $dir failed:"
        grep -E 'error|Error|undefined' "$log" | head -n 40
        tail -n 5 "$log"
        return 1
    fi
}

# emo_program DIR: the path of the emo program in a build folder.
emo_program() {
    local path
    for path in "$1/emo" "$1/bin/emo" "$1/examples/cli/emo"; do
        if [ -x "$path" ] && [ ! -d "$path" ]; then
            echo "$path"
            return 0
        fi
    done
    echo "the emo program was not built in $1" >&2
    return 1
}

# emo_experiment NAME "OPTIONS" CORPUS_DIR [options]: what the scripts of the experiments do, after they defined usage():
# checks the command line (each of OPTIONS takes a value, --out besides), builds, and goes on in scripts/NAME.py.
emo_experiment() {
    local name=$1 known=$2 corpus build out emo rest=()
    shift 2
    case ${1-} in -h | --help) usage && exit 0 ;; esac
    [ $# -ge 1 ] && [ -d "$1" ] || { usage >&2; exit 2; }
    corpus=$(cd "$1" && pwd)
    shift
    build=${EMO_BUILD_DIR:-$root/build}
    out=$build/$name
    while [ $# -gt 0 ]; do
        case " --out $known " in
        *" $1 "*) [ $# -ge 2 ] || { usage >&2; exit 2; } ;;
        *) usage >&2 && exit 2 ;;
        esac
        if [ "$1" = --out ]; then out=$2; else rest+=("$1" "$2"); fi
        shift 2
    done
    "$root/scripts/deps.sh" build quickstart || exit 3
    emo_build "$build" -DCMAKE_BUILD_TYPE=Release >&2 || exit 1
    mkdir -p "$out" || exit 1
    emo=$(emo_program "$build") || exit 1
    exec python3 "$root/scripts/$name.py" --emo "$emo" --corpus "$corpus" --out "$out" ${rest[@]+"${rest[@]}"}
}

# emo_python CODE...: the first Python (PYTHON's, the path's, the system's) that runs one of the pieces of code; else empty.
emo_python() {
    local candidate code
    for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
        for code; do
            if "$candidate" -c "$code" 2>/dev/null; then
                echo "$candidate"
                return 0
            fi
        done
    done
}

# emo_wheel PYTHON COPY_DIR DIST_DIR: the wheel of the Python package into DIST_DIR, from a copy of the package's folder, so
# that the source tree stays as it is. As pip calls it, without pip: a fresh environment may bring an older setuptools.
emo_wheel() {
    cp -r "$root/bindings/python" "$2" && rm -rf "$2/build" "$2"/emo.egg-info && mkdir -p "$3" || return
    (cd "$2" && EMO_SOURCE_DIR=$root "$1" -c \
        'import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])' "$3" >"$2/log" 2>&1) ||
        { echo "the wheel was not built:"; tail -n 20 "$2/log"; return 1; }
}
