# SPDX-License-Identifier: Apache-2.0
# Shell functions the scripts share; sourced by bash, after `root` was set to the top of the source tree.

# emo_build DIR [cmake options]: configures and builds, quietly unless something goes wrong.
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
    if ! cmake --build "$dir" --parallel "$(nproc)" >>"$log" 2>&1; then
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
