# SPDX-License-Identifier: Apache-2.0
"""The runtime: memory, log, threads and devices that all other objects share."""
from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Tuple, Union

from ._call import Handle, call, create, get, path_bytes, unraisable
from ._lib import ctype, library
from ._opt import Options, documented, enum_value
from .enums import DeviceKind, Dtype, LogLevel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RuntimeOptions

__all__ = ["Allocator", "Executor", "Runtime", "Device", "default_runtime", "set_default_runtime"]


class Allocator:
    """Memory of the host's: derive from it. It is called from any thread."""

    def alloc(self, size: int, alignment: int) -> int:
        """An address, or 0 when there is no memory."""
        raise NotImplementedError

    def free(self, address: int, size: int, alignment: int) -> None:
        """Takes back what alloc() gave for the same size and alignment."""
        raise NotImplementedError


class Executor:
    """Parallel work by the host: derive from it.

    `parallel_for(count, run)` calls run(index, worker) for every index below `count` and returns when all are finished;
    worker is below `concurrency`, and no two pieces run at once under one worker number. It is called from several
    threads at once where several calls of the library run.
    """

    concurrency: int = 1

    def parallel_for(self, count: int, run: Callable[[int, int], None]) -> None:
        """Calls run(index, worker) for each index below `count`; here one after the other."""
        for index in range(count):
            run(index, 0)


class Device(NamedTuple):
    """A device that a runtime can compute on."""

    kind: DeviceKind
    backend: str  #: the back end's name: "cpu", "cuda"
    name: str  #: the device's name; for the CPU its instruction-set level
    memory: int  #: bytes; 0: not known
    dtypes: Tuple[Dtype, ...]  #: weights that the device computes with


@documented("emo_runtime_options")
class Runtime(Handle):
    """Memory, threads, log and devices. Most programs need none of their own: calls without `runtime=` share one.

    Objects made from a runtime keep it alive. Besides the options: log_level says which messages `log(level, text)`
    gets ("error", "warning", "info" or "debug"), allocator is an emo.Allocator and executor an emo.Executor."""

    _release = "emo_runtime_release"

    def __init__(self, *, log_level: Union[int, str] = "warning", **options: "Unpack[RuntimeOptions]") -> None:
        keep: List[object] = []
        filled = Options("emo_runtime_options", "emo.Runtime", options, {
            "allocator": lambda o, value: keep.append(_allocator(o.allocator, value)),
            "log": lambda o, value: keep.append(_log(o.log, value)),
            "executor": lambda o, value: keep.append(_executor(o.executor, value)),
        })
        filled.struct.log.level = enum_value("emo_log_level", log_level, "emo.Runtime: option log_level")
        self._adopt(create(Runtime, "emo_runtime_create", filled.struct), *keep)

    @property
    def threads(self) -> int:
        """The number of workers in use."""
        return int(get("emo_runtime_threads", self))

    @property
    def isa(self) -> str:
        """The instruction-set level in use, such as "avx512"."""
        return str(get("emo_isa_name", get("emo_runtime_isa", self)).decode())

    def load_backend(self, path: Any) -> None:
        """Loads a back-end plug-in (an absolute path) and opens every device it finds. Load only files you trust."""
        call("emo_runtime_load_backend", self, path_bytes(path))

    @property
    def devices(self) -> List[Device]:
        """The devices; the first is the CPU."""
        found = []
        for index in range(get("emo_device_count", self)):
            info: Any = library().new("emo_device_info")
            call("emo_device_get_info", self, index, info)
            try:
                kind = DeviceKind(info.kind)
            except ValueError:
                kind = DeviceKind.OTHER
            dtypes = tuple(Dtype(d) for d in info.dtypes[:info.n_dtypes] if d in Dtype._value2member_map_)
            found.append(Device(kind, info.backend.decode(), info.name.decode(), info.memory, dtypes))
        return found

    def __repr__(self) -> str:
        return "<emo.Runtime closed>" if self.closed else "<emo.Runtime %s, %d threads>" % (self.isa, self.threads)


def _allocator(struct: Any, value: Optional[Allocator]) -> object:
    if value is None:
        return None
    take, give = value.alloc, value.free

    def alloc(_: object, size: int, alignment: int) -> int:
        try:
            return int(take(size, alignment) or 0)
        except BaseException as error:
            if not isinstance(error, MemoryError):
                unraisable(error, "emo.Allocator.alloc")
            return 0

    def free(_: object, address: int, size: int, alignment: int) -> None:
        try:
            give(address, size, alignment)
        except BaseException as error:
            unraisable(error, "emo.Allocator.free")

    struct.ctx = None
    struct.alloc = ctype("void * (*)(void *, size_t, size_t)")(alloc)
    struct.free = ctype("void (*)(void *, void *, size_t, size_t)")(free)
    return struct.alloc, struct.free


def _log(struct: Any, value: Optional[Callable[[int, str], object]]) -> object:
    if value is None:
        return None
    sink = value

    def log(_: object, level: int, message: bytes) -> None:
        try:
            sink(LogLevel(level), message.decode("utf-8", "replace"))
        except BaseException as error:
            unraisable(error, "the log of an emo.Runtime")

    struct.ctx = None
    struct.log = ctype("void (*)(void *, emo_log_level, const char *)")(log)
    return struct.log


_task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


def _executor(struct: Any, value: Optional[Executor]) -> object:
    if value is None:
        return None
    host = value

    def parallel_for(_: object, count: int, function: int, task: int) -> None:
        run = _task(function)
        done = set()

        def piece(index: int, worker: int) -> None:
            done.add(index)
            run(task, index, worker)

        try:
            host.parallel_for(count, piece)
        except BaseException as error:
            unraisable(error, "emo.Executor.parallel_for")
        for index in range(count):  # the library counts on every piece
            if index not in done:
                piece(index, 0)

    struct.ctx = None
    struct.concurrency = int(host.concurrency)
    struct.parallel_for = ctype("void (*)(void *, size_t, void *, void *)")(parallel_for)
    return struct.parallel_for


_default: Optional[Runtime] = None
_default_lock = threading.Lock()


def _after_fork() -> None:
    """A thread that is not in the child may have held the lock."""
    global _default_lock
    _default_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_runtime() -> Runtime:
    """The runtime of calls without `runtime=`: made when first needed, with as many threads as there are CPUs."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Runtime()
        return _default


def set_default_runtime(runtime: Optional[Runtime]) -> None:
    """Makes another one the default; None: a new one when it is needed."""
    global _default
    with _default_lock:
        _default = runtime


def runtime_or_default(runtime: Optional[Runtime]) -> Runtime:
    if runtime is None:
        return default_runtime()
    if not isinstance(runtime, Runtime):
        raise TypeError("runtime must be an emo.Runtime, not %s" % type(runtime).__name__)
    return runtime


