# SPDX-License-Identifier: Apache-2.0
"""Timing one operator of a device, or what bounds it: reading memory, multiplying in cache."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Optional, Tuple

from ._call import Handle, call, get, make
from ._opt import Options, documented, integer
from .runtime import Runtime, runtime_or_default

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import BenchOptions

__all__ = ["Bench"]


class Bench(Handle):
    """One operator with operands of its own, of the shape that the options say."""

    _release = "emo_bench_release"

    @classmethod
    @documented("emo_bench_options")
    def create(cls, *, runtime: Optional[Runtime] = None, **options: "Unpack[BenchOptions]") -> "Bench":
        """Makes the operands and runs once: Bench.create(kind="linear", tokens=512, hidden=2048, inner=1024)."""
        rt = runtime_or_default(runtime)
        filled = Options("emo_bench_options", "emo.Bench.create", options)
        return make(cls, "emo_bench_create", rt, filled.struct, keep=(rt,))

    def run(self, calls: int = 1) -> float:
        """The mean seconds of a call."""
        seconds = ctypes.c_double()
        call("emo_bench_run", self, integer("int32_t", calls, "calls"), ctypes.byref(seconds))
        return seconds.value

    def _work(self) -> "Tuple[float, float]":
        operations, size = ctypes.c_double(), ctypes.c_double()
        get("emo_bench_work", self, ctypes.byref(operations), ctypes.byref(size))
        return operations.value, size.value

    @property
    def operations(self) -> float:
        """Of a call; a multiplication and an addition are two."""
        return self._work()[0]

    @property
    def bytes(self) -> float:
        """The least that a call moves."""
        return self._work()[1]
