# SPDX-License-Identifier: Apache-2.0
"""Communicators: what the ranks of a data-parallel run sum over; and ranks as threads of one process."""
from __future__ import annotations

import ctypes
import threading
from typing import Any, Callable, List, Optional, TypeVar

from . import errors
from ._call import Handle, call, create, get, make
from ._lib import STRUCTS, ctype, library
from ._opt import integer
from .array import _TYPES, Array, _name_of, borrow, from_dlpack
from .enums import Dtype, Status
from .runtime import Runtime, runtime_or_default

__all__ = ["Comm", "CommPlugin", "run"]

_T = TypeVar("_T")
_DTYPES = {"f32": Dtype.F32, "f64": Dtype.F64, "i32": Dtype.I32, "i64": Dtype.I64}


class CommPlugin:
    """What a communicator of one's own supplies: derive from it. Memory is given as an address on the host; raise to
    fail. A call must never wait for a rank that is gone."""

    def all_reduce_sum(self, address: int, count: int, dtype: Dtype) -> None:
        """`count` elements at `address` become the sum over all ranks, the same bits on each."""
        raise NotImplementedError

    def broadcast(self, address: int, size: int, root: int) -> None:
        """`size` bytes at `address` become those of rank `root`."""
        raise NotImplementedError

    def barrier(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        """Any thread; makes all ranks fail from here on."""

    def destroy(self) -> None:
        """The rank leaves."""


class Comm(Handle):
    """One rank's handle. Collective calls must be made by all ranks, in the same order; a handle belongs to one thread
    at a time. When a rank fails, is aborted or leaves, every other rank gets emo.CommError."""

    _release = "emo_comm_release"

    def __init__(self, plugin: CommPlugin, rank: int, size: int, *, runtime: Optional[Runtime] = None) -> None:
        """Wraps a communicator of one's own; Comm.single() and Comm.local() make the library's."""
        rt = runtime_or_default(runtime)
        vtable, keep = _vtable(plugin)
        address = create(Comm, "emo_comm_create", rt, vtable, None, integer("int32_t", rank, "rank"),
                         integer("int32_t", size, "size"))
        self._adopt(address, rt, vtable, keep)

    @classmethod
    def single(cls, *, runtime: Optional[Runtime] = None) -> "Comm":
        """One rank: every collective is a no-op."""
        rt = runtime_or_default(runtime)
        return make(cls, "emo_comm_create_single", rt, keep=(rt,))

    @classmethod
    def local(cls, ranks: int, *, runtime: Optional[Runtime] = None) -> "List[Comm]":
        """Ranks of this process, each to be used by a thread of its own: see run()."""
        rt = runtime_or_default(runtime)
        count = integer("int32_t", ranks, "ranks")
        out = (ctypes.c_void_p * max(min(count, 1024), 1))()
        call("emo_comm_create_local", rt, count, out)
        return [cls._wrap(int(address or 0), rt) for address in out]

    @property
    def rank(self) -> int:
        return int(get("emo_comm_rank", self))

    @property
    def size(self) -> int:
        """The number of ranks."""
        return int(get("emo_comm_size", self))

    def set_timeout(self, seconds: float) -> None:
        """How long a collective call waits for the others; 0: for ever. Holds for all ranks of the process."""
        call("emo_comm_set_timeout", self, float(seconds))

    def all_reduce_sum(self, data: Any) -> None:
        """data = the sum over the ranks of their data, in place: writable f32, f64, i32 or i64, the same on each."""
        name = _element_type(data)
        if name not in _DTYPES:
            raise TypeError("data must hold f32, f64, i32 or i64, not %s" % name)
        memory = borrow(data, name, "data", writable=True)
        call("emo_comm_all_reduce_sum", self, memory.address, memory.size, int(_DTYPES[name]))

    def broadcast(self, data: Any, root: int = 0) -> None:
        """Data of rank `root` to all ranks, in place: writable memory."""
        name = _element_type(data)
        memory = borrow(data, name, "data", writable=True)
        call("emo_comm_broadcast", self, memory.address, memory.size * _TYPES[name][1], integer("int32_t", root, "root"))

    def barrier(self) -> None:
        """Returns when all ranks have called it."""
        call("emo_comm_barrier", self)

    def abort(self) -> None:
        """Makes the present and every later collective call of all ranks raise CommError. Any thread."""
        get("emo_comm_abort", self)

    def __repr__(self) -> str:
        return "<emo.Comm closed>" if self.closed else "<emo.Comm rank %d of %d>" % (self.rank, self.size)


def _element_type(data: Any) -> str:
    if isinstance(data, Array):
        return data.dtype
    try:
        view = memoryview(data)
    except TypeError:
        if hasattr(data, "__dlpack__"):
            return from_dlpack(data).dtype
        raise TypeError("data must be writable memory, not %s" % type(data).__name__) from None
    return _name_of(view.format, view.itemsize) or view.format


def _vtable(plugin: CommPlugin) -> Any:
    def guarded(function: Callable[..., None], err: int) -> int:
        try:
            function()
            return 0
        except BaseException as error:
            status = int(error.status) if isinstance(error, errors.Error) else int(Status.COMM)
            if err:
                struct: Any = STRUCTS["emo_error"].from_address(err)
                struct.code = status
                struct.message = ("%s: %s" % (type(error).__name__, error)).encode("utf-8")[:400]
            return status

    def all_reduce_sum(_: object, data: int, count: int, dtype: int, stream: int, err: int) -> int:
        return guarded(lambda: plugin.all_reduce_sum(data or 0, count, Dtype(dtype)), err)

    def broadcast(_: object, data: int, size: int, root: int, stream: int, err: int) -> int:
        return guarded(lambda: plugin.broadcast(data or 0, size, root), err)

    def barrier(_: object, err: int) -> int:
        return guarded(plugin.barrier, err)

    def abort(_: object) -> None:
        guarded(plugin.abort, 0)

    def destroy(_: object) -> None:
        guarded(plugin.destroy, 0)

    vtable: Any = library().new("emo_comm_vtable")
    vtable.all_reduce_sum = ctype("emo_status (*)(void *, void *, size_t, emo_dtype, void *, emo_error *)")(all_reduce_sum)
    vtable.broadcast = ctype("emo_status (*)(void *, void *, size_t, int32_t, void *, emo_error *)")(broadcast)
    vtable.barrier = ctype("emo_status (*)(void *, emo_error *)")(barrier)
    vtable.abort = ctype("void (*)(void *)")(abort)
    vtable.destroy = ctype("void (*)(void *)")(destroy)
    keep = (vtable.all_reduce_sum, vtable.broadcast, vtable.barrier, vtable.abort, vtable.destroy)
    return vtable, keep


def run(ranks: int, work: Callable[[Comm], _T], *, timeout: Optional[float] = None,
        runtime: Optional[Runtime] = None) -> List[_T]:
    """Runs work(comm) on a thread for each of so many ranks; gives their results in order of rank.

    When one of them raises, the others are stopped (CommError) and the first exception that is not such a consequence is
    raised here. Ctrl-C aborts all ranks.
    """
    comms = Comm.local(ranks, runtime=runtime)
    if timeout is not None:
        comms[0].set_timeout(timeout)
    results: List[Any] = [None] * len(comms)
    raised: List[Optional[BaseException]] = [None] * len(comms)

    def rank(index: int) -> None:
        try:
            results[index] = work(comms[index])
        except BaseException as error:
            raised[index] = error
            comms[index].abort()

    threads = [threading.Thread(target=rank, args=(i,), name="emo rank %d" % i) for i in range(len(comms))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    except BaseException:
        comms[0].abort()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    finally:
        for comm in comms:
            comm.close()
    first: Optional[BaseException] = None
    for error in raised:
        if error is not None and (first is None or isinstance(first, errors.CommError)):
            first = error
    if first is not None:
        raise first
    return results
