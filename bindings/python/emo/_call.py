# SPDX-License-Identifier: Apache-2.0
"""Calls into the library: handles that stay alive while they are used, errors as exceptions, callbacks that may raise.

The GIL is free while the library works: ctypes gives it back around every call.
"""
from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import weakref
from typing import Any, Callable, List, Optional, Tuple, Type, TypeVar

from . import errors
from ._lib import STRUCTS, ctype, library
from .enums import Status

_T = TypeVar("_T", bound="Handle")
_lock = threading.RLock()


def _after_fork() -> None:
    """A thread that is not in the child may have held the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)



class _Reference:
    """One reference to a C object. It is given back once: when it was closed and no call uses it any more."""

    __slots__ = ("address", "release", "uses", "closed")

    def __init__(self, address: int, release: str) -> None:
        self.address = address
        self.release = release
        self.uses = 0
        self.closed = False

    def enter(self, what: str) -> int:
        with _lock:
            if self.closed:
                raise ValueError("this %s is closed" % what)
            self.uses += 1
            return self.address

    def leave(self) -> None:
        with _lock:
            self.uses -= 1
            last = self.closed and self.uses == 0 and self.address != 0
            address, self.address = self.address, 0 if last else self.address
        if last:
            getattr(library(), self.release)(address)

    def close(self) -> None:
        with _lock:
            self.closed = True
            self.uses += 1
        self.leave()


class Pin:
    """Keeps a C object while memory of it is shown."""

    __slots__ = ("_reference", "_keep", "__weakref__")

    def __init__(self, handle: "Handle") -> None:
        handle._reference.enter(type(handle).__name__)
        self._reference = handle._reference
        self._keep = handle._keep
        weakref.finalize(self, self._reference.leave)


class Handle:
    """What every object of the library is: a context manager that can be closed early, in any order.

    Closing an object twice does nothing. An object that others were made from, or that a call is using, lives on inside
    the library until they are gone.
    """

    __slots__ = ("_reference", "_keep", "_finalizer", "__weakref__")
    _release = ""

    @classmethod
    def _wrap(cls: Type[_T], address: int, *keep: object) -> _T:
        self = cls.__new__(cls)
        self._adopt(address, *keep)
        return self

    def _adopt(self, address: int, *keep: object) -> None:
        """`keep` lives as long as this object: parents, callbacks, memory that the library borrows."""
        self._reference = _Reference(address, self._release)
        self._keep: Tuple[object, ...] = keep
        self._finalizer = weakref.finalize(self, self._reference.close)

    def close(self) -> None:
        """Gives the object back now."""
        if hasattr(self, "_reference"):
            self._finalizer.detach()
            self._reference.close()

    @property
    def closed(self) -> bool:
        return self._reference.closed

    def __enter__(self: _T) -> _T:
        if self.closed:
            raise ValueError("this %s is closed" % type(self).__name__)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<emo.%s%s>" % (type(self).__name__, " closed" if self.closed else "")

    def __copy__(self: _T) -> _T:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("%s objects cannot be pickled: save and load them" % type(self).__name__)


class Hooks:
    """The callbacks of one call or one object. An exception in one of them stops the work and goes to the caller."""

    def __init__(self, progress: Optional[Callable[[str, int, int], object]] = None) -> None:
        self.user = progress
        self.error: Optional[BaseException] = None
        self.interrupted = False
        # Closures over a cell and not over self: no cycle, so that everything goes when the last reference does.
        weak = weakref.ref(self)
        info_type = STRUCTS["emo_progress_info"]

        def report(_: object, info: int) -> int:
            hooks = weak()
            if hooks is None:
                return 1
            try:
                if hooks.user is not None and hooks.error is None and not hooks.interrupted:
                    at: Any = info_type.from_address(info)
                    if hooks.user((at.phase or b"").decode("utf-8", "replace"), at.done, at.total):
                        return 1
            except BaseException as error:  # it goes on in the caller
                hooks.fail(error)
            return 1 if hooks.error is not None or hooks.interrupted else 0

        self.report = ctype("int32_t (*)(void *, const emo_progress_info *)")(report)

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def fill(self, progress: Any) -> None:
        """Fills in an emo_progress."""
        progress.ctx = None
        progress.report = self.report

    def interrupt(self, signum: int, frame: object) -> None:
        self.interrupted = True


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _status_of(function: Any, arguments: List[Any], hooks: Optional[Hooks]) -> int:
    """The call itself. With hooks Ctrl-C is noticed by the next report, on the main thread and where Python's own
    handler is in place: a handler of the host's is left alone."""
    if hooks is None or not _on_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return int(function(*arguments))
    hooks.interrupted = False
    signal.signal(signal.SIGINT, hooks.interrupt)
    try:
        return int(function(*arguments))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _pass(argument: Any, used: List[_Reference]) -> Any:
    if isinstance(argument, Handle):
        address = argument._reference.enter(type(argument).__name__)
        used.append(argument._reference)
        return address
    if isinstance(argument, ctypes.Structure):
        return ctypes.byref(argument)
    return argument


def call(name: str, *arguments: Any, hooks: Optional[Hooks] = None) -> None:
    """Calls a function that returns a status, its last parameter being the error; raises what it says.

    Handles go in as they are, structs by their address. They stay alive during the call whatever other threads do.
    """
    function = getattr(library(), name)
    error: Any = STRUCTS["emo_error"]()
    used: List[_Reference] = []
    status = 0
    try:
        passed = [_pass(argument, used) for argument in arguments]
        status = _status_of(function, passed + [ctypes.byref(error)], hooks)
    finally:
        for reference in used:
            reference.leave()
    if hooks is not None and status != Status.BUSY:  # busy: the hooks belong to the call that runs
        raised, hooks.error = hooks.error, None
        interrupted, hooks.interrupted = hooks.interrupted, False
        if raised is not None:
            raise raised
        if interrupted:
            raise KeyboardInterrupt
    if status != 0:
        message = error.message.decode("utf-8", "replace") or status_text(status)
        raise errors.make(status, message, error.domain, error.number)


def get(name: str, *arguments: Any) -> Any:
    """Calls a function that returns a value."""
    used: List[_Reference] = []
    try:
        return getattr(library(), name)(*[_pass(argument, used) for argument in arguments])
    finally:
        for reference in used:
            reference.leave()


def make(kind: Type[_T], name: str, *arguments: Any, keep: Tuple[object, ...] = (), hooks: Optional[Hooks] = None) -> _T:
    """Calls a constructor, whose parameters end with `out` and the error."""
    return kind._wrap(create(kind, name, *arguments, hooks=hooks), *keep)


def create(kind: Type[Handle], name: str, *arguments: Any, hooks: Optional[Hooks] = None) -> int:
    """The same, as an address that somebody must adopt."""
    out = ctypes.c_void_p()
    try:
        call(name, *arguments, ctypes.byref(out), hooks=hooks)
    except BaseException:
        if out.value:  # done all the same, and then a callback raised
            getattr(library(), kind._release)(out.value)
        raise
    if not out.value:
        raise errors.InternalError("%s gave no object" % name)
    return int(out.value)


def status_text(status: int) -> str:
    """One line of text for a status."""
    return str(library().emo_status_text(status).decode())


def status_name(status: int) -> str:
    """The name of a status in C, such as "EMO_E_IO"."""
    return str(library().emo_status_name(status).decode())


def text(name: str, *arguments: Any, terminated: bool = True) -> str:
    """A text from a function with the parameters buffer, capacity and size."""
    size = ctypes.c_size_t()
    call(name, *arguments, None, 0, ctypes.byref(size))
    capacity = size.value + 1
    buffer = ctypes.create_string_buffer(capacity)
    call(name, *arguments, buffer, capacity, ctypes.byref(size))
    return (buffer.value if terminated else buffer.raw[:size.value]).decode("utf-8")


def path_bytes(path: Any) -> bytes:
    """A path for the library: bytes without NUL."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("a path holds a NUL: %r" % (path,))
    return raw


def text_bytes(value: str, what: str = "the text") -> bytes:
    """A text for the library where it must not hold a NUL."""
    if not isinstance(value, str):
        raise TypeError("%s must be str, not %s" % (what, type(value).__name__))
    raw = value.encode("utf-8", "surrogatepass")
    if b"\0" in raw:
        raise ValueError("%s holds a NUL" % what)
    return raw


def unraisable(error: BaseException, where: str) -> None:
    """For callbacks that cannot stop anything: as Python does with errors in __del__."""
    print("Exception ignored in %s: %r" % (where, error), file=sys.stderr)
