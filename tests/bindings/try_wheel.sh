#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs a wheel of the Python package into a fresh virtual environment and uses it there: first without anything else,
# from another folder, then with the whole of tests/bindings/python (where pytest is installed).
# usage: try_wheel.sh SOURCE_DIR WHEEL WORK_DIR [--short]
set -eu
source=$1
wheel=$2
work=$3
. "$source/scripts/common.sh"
rm -rf "$work/fresh"
unset EMO_LIBRARY PYTHONPATH
"${PYTHON:-python3}" -m venv "$work/fresh"
fresh=$work/fresh/bin/python
"$fresh" -m pip install -q --disable-pip-version-check --no-index "$wheel"
# Where it looks for its own libraries: beside itself or nowhere, and never in the present folder.
if command -v readelf >/dev/null 2>&1; then
    for library in "$work"/fresh/lib/python3*/site-packages/emo/lib/libemo.so.*; do
        paths=$(readelf -d "$library" | grep -E 'RPATH|RUNPATH' | grep -vF '[$ORIGIN]' || true)
        [ -z "$paths" ] || { echo "FAILED: $library looks elsewhere: $paths"; exit 1; }
    done
fi
# What the name promises: the C library's version is the newest that any library inside asks for, and the rest of what
# they ask for lies beside them or is everywhere. readelf is the judge, so that setup.py is not its own.
case $wheel in
*-manylinux_2_*)
    lib=$(dirname "$(ls "$work"/fresh/lib/python3*/site-packages/emo/lib/libemo.so.*)")
    promised=${wheel##*manylinux_2_}
    promised=${promised%%_*}
    asked=$(readelf -V "$lib"/*.so.*[0-9] | grep -oE 'GLIBC_[A-Z0-9_.]+' | sort -uV | tail -n 1)
    [ "$asked" = "GLIBC_2.$promised" ] || [ "$promised" = 17 ] || { echo "FAILED: $wheel asks for $asked"; exit 1; }
    for needed in $(readelf -d "$lib"/*.so.*[0-9] | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
        [ -e "$lib/$needed" ] || grep -qE '^(lib(c|m|dl|pthread|rt|z|gcc_s)\.so\.[0-9]+|ld-linux.*)$' <<<"$needed" ||
            { echo "FAILED: $wheel asks for $needed"; exit 1; }
    done
    if command -v auditwheel >/dev/null 2>&1; then
        auditwheel show "$wheel" | tr '\n' ' ' | grep -qF "constrains the platform tag to \"manylinux_2_${promised}_" ||
            { auditwheel show "$wheel"; echo "FAILED: auditwheel says something else"; exit 1; }
    fi
    ;;
esac
cd "$work"
"$fresh" - "$source" <<'CODE'
import pathlib, sys
import emo
text = pathlib.Path(sys.argv[1], "CMakeLists.txt").read_text()
assert "VERSION %s " % emo.__version__ in text, emo.__version__
where = pathlib.Path(emo.library().path)
assert where.parent == pathlib.Path(emo.__file__).parent / "lib" and "fresh" in str(where), where
tok = emo.Tokenizer.bytes()
data = emo.Dataset.from_texts(["river bridge water stone"] * 8, tok)
model = emo.Model({"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                   "num_experts": 5, "num_shared_experts": 1, "num_experts_per_tok": 2}, tokenizer=tok)
with emo.Trainer(model, data, pool="uniform:2:4", max_steps=30, batch_rows=2, seq_len=24, lr=3e-2) as trainer:
    losses = [step.loss for step in trainer]
assert losses[-1] < losses[0] / 2, losses
small = model.prune(model.select(data, keep=3))
print("%s in %s: loss %.2f to %.2f, says %r" %
      (emo.__version__, sys.version.split()[0], losses[0], losses[-1], "".join(small.generate("river", tokens=7))))
CODE
[ "${4-}" != --short ] || exit 0
python=$(emo_python 'import pytest')
[ -n "$python" ] || { echo "pytest is not installed: the tests are left out"; exit 0; }
EMO_TEST_INSTALLED=1 PYTHONPATH=$(echo "$work"/fresh/lib/python3*/site-packages) PYTHONDONTWRITEBYTECODE=1 \
    "$python" -m pytest -q -p no:cacheprovider --tb=short "$source/tests/bindings/python"
