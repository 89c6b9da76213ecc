# SPDX-License-Identifier: Apache-2.0
"""Timing single operators."""
import pytest

import emo


def test_an_operator_is_timed():
    with emo.Bench.create(kind="linear", tokens=8, hidden=64, inner=32, weights="bf16") as bench:
        assert bench.run(3) > 0.0
        assert bench.operations == 2 * 8 * 64 * 32
        assert bench.bytes == 4 * (8 * 64 + 8 * 32) + 2 * 64 * 32


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(emo.RangeError, match="tokens is 0"):
        emo.Bench.create(kind=emo.BenchKind.NORM, tokens=0)
    with pytest.raises(TypeError, match="did you mean tokens"):
        emo.Bench.create(kind="norm", token=3)
