#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# scripts/nvcc_gate.py finds what it is there to find: spills, local memory, a missing tensor core, a changed table; and
# reads a cubin right. usage: test_nvcc_gate.sh SOURCE_DIR
command -v python3 >/dev/null 2>&1 || exit 77
exec python3 -B "$1/tests/cudasim/check_nvcc_gate.py" "$1"
