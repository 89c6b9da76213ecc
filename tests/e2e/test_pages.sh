#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every code block of every page is compiled or run by a test, or its words are looked up; what is neither fails here.
#   sh                   run here, on a tiny model and corpus, page by page, in the order of the page (docs/tasks: by
#                        test_docs.sh, which needs no more than the page itself)
#   sh elsewhere: WHY    cannot run in a test: every emo command and option, script, path and build option in it must exist
#   json NAME            becomes that file before the page's commands run; json: must be JSON, or members of an object
#   text                 no code
#   c, cpp, python, cmake, jsonl NAME    see `others` below
# Commands run as they stand, but for training: `emo train` gets two steps instead of its minutes or tokens.
# usage: test_pages.sh SOURCE_DIR BUILD_DIR
set -u
SOURCE=$(realpath "${1:?usage: test_pages.sh SOURCE_DIR BUILD_DIR}")
BUILD=${2:?usage: test_pages.sh SOURCE_DIR BUILD_DIR}
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1

# others PAGE LANGUAGE: which test takes such blocks of such a page; nothing when none does.
others() {
    case $2:$1 in
    c:README.md | c:docs/[a-z]*.md) echo test_install.sh ;;
    cmake:docs/packaging.md) echo test_install.sh ;;
    python:README.md | python:docs/python.md | python:bindings/python/README.md) echo test_docs.py ;;
    *:docs/tasks/*) echo test_docs.sh ;;
    jsonl:docs/evaluation.md) echo test_tasks.sh ;;
    esac
}

# The program in the pages: two steps of training.
mkdir "$WORK/bin"
cat >"$WORK/bin/emo" <<EOT
#!/bin/bash
rest=("\$@")
if [ "\${1-}" = train ] && [[ " \$* " != *" --dry-run "* ]]; then
    rest=()
    while [ \$# -gt 0 ]; do
        if [ "\$1" = --minutes ]; then shift; else rest+=("\$1"); fi
        shift
    done
    rest+=(--steps 2)
fi
exec "$EMO" "\${rest[@]}"
EOT
chmod +x "$WORK/bin/emo"
PATH=$WORK/bin:$PATH
export PATH

# What the pages speak of: a corpus, its tokenizer, a run and masks of its experts; made once.
make_things() {
    local i
    mkdir "$WORK/things" && cd "$WORK/things" || exit 1
    for i in 1 2 3 4 5 6 7 8; do
        echo '{"text": "A fever in small children is treated with water and rest, said the doctor.", "domain": "health"}'
        echo '{"text": "The court heard the case of the bridge over the river and the boat below.", "domain": "law"}'
    done >corpus.jsonl
    for i in health law; do
        grep "\"$i\"" corpus.jsonl | sed -n '1s/.*"text": "\([^"]*\)".*/\1/p' >note.$i.txt
    done
    cp note.health.txt note.txt
    gzip -c corpus.jsonl >corpus.jsonl.gz
    cp corpus.jsonl.gz test.jsonl.gz
    for i in 1 2 3 4; do # every second one is of both domains too
        echo '{"domain": "health", "context": "A fever in", "choices": [" small children", " the bridge"], "answer": 0}'
        echo '{"domain": "health", "context": "The doctor", "choices": [" and the boat", " and water"], "answer": 1}'
        echo '{"domain": "law", "context": "The court", "choices": [" and rest", " heard the case"], "answer": 1}'
        echo '{"domain": "law", "context": "The case of", "choices": [" the bridge", " small children"], "answer": 0}'
    done | gzip >mc.jsonl.gz
    echo all,corpus.jsonl >corpus.mix
    ln -s "$SOURCE/examples" examples
    must emo tokenizer train --data corpus.jsonl --vocab-size 300 --out tokenizer.json
    echo '{"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_experts": 17, "num_shared_experts": 1, "num_experts_per_tok": 3, "max_position_embeddings": 1024}' >config.json
    must emo train --config config.json --tokenizer tokenizer.json --data corpus.jsonl --batch 2 --seq-len 32 --out run
    for i in health law; do
        must emo select --model run --calibration note.$i.txt --keep 9 --out $i.json
    done
    rm -f out err config.json
    cd "$WORK" || exit 1
}

# A folder for a page's commands: things that the page makes itself are not there.
enter() {
    mkdir -p "$WORK/$1"
    cp -r "$WORK/things/." "$WORK/$1"
    cd "$WORK/$1" || exit 1
    case $1 in
    docs/cli.md) rm -r run *.json ;;
    docs/recipes.md) rm -r run ;;
    docs/evaluation.md) mv run nano ;;
    esac
}

# look_up BLOCK PAGE: the words of commands that are not run here.
look_up() {
    local line words word at command seen
    sed -e ':a' -e '/\\$/N; s/\\\n//; ta' "$1" | sed 's/ #.*//; s/ *\(&&\|;\) */\n/g' >lines
    while IFS= read -r line; do
        read -ra words <<<"$line"
        seen=0
        command=
        for at in "${!words[@]}"; do
            word=${words[at]}
            case $word in
            emo | */emo)
                command="${words[at + 1]}"
                "$EMO" "$command" --help >help 2>&1 || fail "$2: emo $command is no command"
                seen=1
                ;;
            scripts/*.sh | tests/*.sh | .ci/run)
                command=$word
                [ -e "$SOURCE/$word" ] || fail "$2: there is no $word"
                cp "$SOURCE/$word" help 2>/dev/null
                seen=1
                ;;
            bench_*)
                [ -e "$SOURCE/tests/bench/$word.c" ] || fail "$2: there is no tests/bench/$word.c"
                seen=1
                ;;
            examples/* | ./bindings/*) [ -e "$SOURCE/$word" ] && seen=1 || fail "$2: there is no $word" ;;
            -DEMO_*)
                word=${word%%=*}
                grep -rqw -- "${word#-D}" "$SOURCE/CMakeLists.txt" "$SOURCE/cmake" || fail "$2: $word is no option of the build"
                ;;
            cmake | ninja | ctest | python3 | ldconfig | .) seen=1 ;;
            --*)
                word=${word%%=*}
                [ -z "$command" ] || grep -qE -- "$word([^a-z-]|$)" help || fail "$2: $command has no option $word"
                ;;
            esac
        done
        [ $seen = 1 ] || fail "$2: nothing in this line can be looked up: $line"
    done < <(grep -v '^ *$' lines)
}

make_things
blocks=0
ran=0
looked=0
while IFS= read -r page; do
    grep -q '^```' "$SOURCE/$page" || continue
    rm -rf "$WORK/blocks"
    mkdir "$WORK/blocks"
    # N.LANGUAGE, its first line what stands behind the language.
    awk -v dir="$WORK/blocks" -v page="$page" '
        /^ *```/ && !inside { n++; inside = 1; line = $0; sub(/^ *```/, "", line); language = line; sub(/ .*/, "", language)
            rest = substr(line, length(language) + 2)
            file = sprintf("%s/%03d.%s", dir, n, language == "" ? "none" : language); print rest > file; next }
        /^ *```/ { inside = 0; next }
        inside { print > file }
        END { if (inside) print "a block never ends" > (dir "/999.none") }' "$SOURCE/$page"
    enter "$page"
    # Files first: a page may show one below the command that uses it.
    for block in "$WORK"/blocks/*; do
        read -r info <"$block"
        case $block in *.json | *.jsonl) [ -z "$info" ] || tail -n +2 "$block" >"$info" ;; esac
    done
    for block in "$WORK"/blocks/*; do
        blocks=$((blocks + 1))
        language=${block##*.}
        read -r info <"$block"
        tail -n +2 "$block" >"$WORK/block"
        [ -s "$WORK/block" ] || fail "$page: an empty block"
        if [ -n "$(others "$page" "$language")" ] && [[ $info != elsewhere* ]]; then
            continue
        fi
        case $language:$info in
        text:) ;;
        sh:elsewhere:\ ?*)
            look_up "$WORK/block" "$page"
            looked=$((looked + 1))
            ;;
        sh:)
            bash -eu -o pipefail "$WORK/block" >out 2>err </dev/null ||
                fail "$page: $(cat "$WORK/block" out; tail -n 5 err)"
            ran=$((ran + 1))
            ;;
        json:*)
            [ -n "$info" ] || python3 -c 'import json, sys
text = open(sys.argv[1]).read()
json.loads(text if text.startswith("{") else "{" + text + "}")' "$WORK/block" 2>err || fail "$page: no JSON: $(cat "$WORK/block")"
            ;;
        *) fail "$page: no test takes a block of: $language $info" ;;
        esac
    done
    # Files that no command of the page reads must at least be what the program takes them for.
    case $page in
    docs/formats.md) must emo info mask.json && grep -q 33 out || fail "$page: emo info does not know its mask" ;;
    esac
    cd "$WORK" || exit 1
done < <(cd "$SOURCE" && find . -name '*.md' -not -path './build*' -not -path './.git/*' -not -path './debian/*' | sed 's:^\./::' | sort)
[ $ran -ge 6 ] && [ $looked -ge 6 ] && [ $blocks -gt 60 ] || fail "found only $blocks blocks, $ran to run, $looked to look up"
[ $failures = 0 ] || exit 1
echo "$blocks blocks: $ran run here, $looked looked up, the others by other tests"
