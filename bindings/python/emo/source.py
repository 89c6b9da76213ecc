# SPDX-License-Identifier: Apache-2.0
"""Where model files come from: a path, memory, or anything with seek() and read()."""
from __future__ import annotations

import ctypes
import os
import threading
from typing import Any, List, Optional, Union

from ._call import Handle, Pin, call, create, get, path_bytes
from ._lib import ctype, library
from .array import Array, borrow
from .enums import Status
from .runtime import Runtime, runtime_or_default

__all__ = ["Source"]

class Source(Handle):
    """A read-only, random-access run of bytes whose size never changes.

    Source(path) opens a file, which is mapped; Source(data) shows bytes, a memoryview, an mmap or a numpy array, without
    copying them; Source(file) reads an open binary file with seek() and read(), under a lock, since the library reads
    from several threads.
    """

    _release = "emo_source_release"

    def __init__(self, what: Any, *, runtime: Optional[Runtime] = None) -> None:
        rt = runtime_or_default(runtime)
        if isinstance(what, (str, os.PathLike)):
            self._adopt(create(Source, "emo_source_open_path", rt, path_bytes(what)), rt)
        elif hasattr(what, "seek") and hasattr(what, "read") and not _is_memory(what):
            self._from_file(what, rt)
        else:
            memory = borrow(memoryview(what).cast("B"), "u8", "what")
            self._adopt(create(Source, "emo_source_from_memory", rt, memory.address, memory.size), rt, memory)

    def _from_file(self, file: Any, rt: Runtime) -> None:
        lock = threading.Lock()
        failed: List[BaseException] = []
        size = file.seek(0, os.SEEK_END)

        def size_of(_: object, out: int) -> int:
            ctypes.c_uint64.from_address(out).value = size
            return 0

        def read_at(_: object, offset: int, data: int, count: int) -> int:
            try:
                with lock:
                    file.seek(offset or 0)
                    done = 0
                    while done < count:
                        piece = file.read(count - done)
                        if not piece:
                            return int(Status.IO)
                        ctypes.memmove(data + done, bytes(piece), len(piece))
                        done += len(piece)
                return 0
            except BaseException as error:  # it goes on in the caller
                failed.append(error)
                return int(Status.IO)

        vtable: Any = library().new("emo_source_vtable")
        vtable.size = ctype("emo_status (*)(void *, uint64_t *)")(size_of)
        vtable.read_at = ctype("emo_status (*)(void *, uint64_t, void *, size_t)")(read_at)
        address = create(Source, "emo_source_create", rt, vtable, None)
        self._adopt(address, rt, vtable.size, vtable.read_at, vtable)
        self._failed = failed

    def _raise_failed(self) -> None:
        """What a host's file raised while the library read it."""
        failed = getattr(self, "_failed", None)
        if failed:
            error = failed[0]
            failed.clear()
            raise error

    def __len__(self) -> int:
        """The size in bytes."""
        return int(get("emo_source_size", self))

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on."""
        if offset < 0 or size < 0:
            raise ValueError("offset and size must not be negative")
        if offset + size > len(self):  # before memory is set aside
            from .errors import RangeError

            raise RangeError("bytes %d to %d of a source of %d" % (offset, offset + size, len(self)))
        buffer = ctypes.create_string_buffer(max(size, 1))
        try:
            call("emo_source_read_at", self, offset, buffer, size)
        except BaseException:
            self._raise_failed()
            raise
        return buffer.raw[:size]

    def map(self) -> Optional[memoryview]:
        """All bytes as a view, without a copy; None when the source cannot be mapped. It keeps the source alive."""
        address = get("emo_source_map", self)
        if not address:
            return None
        return Array._over("u8", (len(self),), address, Pin(self)).view

def _is_memory(what: Any) -> bool:
    try:
        memoryview(what)
        return True
    except TypeError:
        return False

def as_source(what: Union[Source, Any], runtime: Runtime) -> Source:
    """A Source, or one made of what Source() takes."""
    return what if isinstance(what, Source) else Source(what, runtime=runtime)

