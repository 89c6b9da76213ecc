#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_llama_cpp.sh SOURCE BUILD: GGUF files run in an unmodified llama.cpp as they run here, where the Python package
# llama-cpp-python is there; EMO_LLAMA_PYTHON names the Python that has it.
set -eu
library=$(find "$2" -maxdepth 2 -name 'libemo.so' | head -n 1)
program=$2/examples/cli/emo
[ -n "$library" ] && [ -x "$program" ] || { echo "skipped: no shared library or no program in this build"; exit 77; }
python=${EMO_LLAMA_PYTHON:-python3}
"$python" -c 'import llama_cpp' 2>/dev/null || {
  echo "skipped: no llama_cpp in $python (pip install llama-cpp-python, or EMO_LLAMA_PYTHON=a Python that has it)"
  exit 77
}
exec "$python" -B "$1/tests/e2e/compare_llama.py" "$library" "$program"
