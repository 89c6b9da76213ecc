#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The Python side of the scripts: markup to text, gathering, the verdicts; and the tables from a tiny corpus, where the
# emo program was built. usage: test_scripts.sh SOURCE_DIR BUILD_DIR
command -v python3 >/dev/null 2>&1 || exit 77
exec python3 -B "$1/tests/scripts/check_scripts.py" "$1/scripts" "${2-}/examples/cli/emo"
