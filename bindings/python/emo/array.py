# SPDX-License-Identifier: Apache-2.0
"""Arrays in and out, without copies where memory can be shared.

Out: an Array is a shape over memory. It has the buffer protocol's view (`array.view`, a memoryview), numpy's
(`numpy.asarray(array)`) and DLPack's (`torch.from_dlpack(array)`); none of them copies, and the memory lives as long as
anything shows it. In: whatever has the buffer protocol (bytes, array.array, memoryview, numpy), DLPack (torch on the
CPU) or is a list of numbers; lists and other element types are copied.
"""
from __future__ import annotations

import array as _array
import ctypes
import importlib
import math
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from ._dlpack import export, imported

__all__ = ["Array", "from_dlpack"]

#: element types: name -> (format of struct and memoryview, bytes, typestr of numpy)
_TYPES: Dict[str, Tuple[str, int, str]] = {
    "f32": ("f", 4, "<f4"), "f64": ("d", 8, "<f8"), "i32": ("i", 4, "<i4"), "i64": ("q", 8, "<i8"), "u8": ("B", 1, "|u1"),
}


def _name_of(fmt: str, size: int) -> Optional[str]:
    letter = fmt.lstrip("@=<")
    if letter in ("f", "d") and size in (4, 8):
        return "f32" if size == 4 else "f64"
    if letter in ("i", "l", "q") and size in (4, 8):
        return "i32" if size == 4 else "i64"
    if letter in ("B", "?", "b", "c") and size == 1:
        return "u8"
    return None


class Array:
    """Numbers in memory: row-major, with a shape.

    Attributes:
        shape: the lengths of the axes
        dtype: "f32", "f64", "i32", "i64" or "u8"
        readonly: whether the memory may not be written
    """

    __slots__ = ("shape", "dtype", "readonly", "address", "_owner", "__weakref__")

    def __init__(self, dtype: str, shape: Sequence[int]) -> None:
        """New memory, zeroed."""
        size = math.prod(shape) * _TYPES[dtype][1]
        memory = ctypes.create_string_buffer(max(size, 1))
        self._set(dtype, tuple(int(n) for n in shape), ctypes.addressof(memory), memory, False)

    def _set(self, dtype: str, shape: Tuple[int, ...], address: int, owner: object, readonly: bool) -> None:
        self.dtype, self.shape, self.address, self._owner, self.readonly = dtype, shape, address, owner, readonly

    @classmethod
    def _over(cls, dtype: str, shape: Sequence[int], address: int, owner: object, readonly: bool = True) -> "Array":
        """A shape over memory that `owner` keeps alive."""
        self = cls.__new__(cls)
        if math.prod(shape) == 0 or not address:
            return cls(dtype, shape)
        self._set(dtype, tuple(int(n) for n in shape), address, owner, readonly)
        return self

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * _TYPES[self.dtype][1]

    @property
    def view(self) -> memoryview:
        """The same memory as a memoryview with this shape; it keeps the memory alive."""
        kind: Any = type("emo_memory", (ctypes.c_char * max(self.nbytes, 1),), {})
        memory = kind.from_address(self.address)
        memory._owner = self._owner
        flat = memoryview(memory).cast("B")[:self.nbytes]
        if self.readonly:
            flat = flat.toreadonly()
        letter = _TYPES[self.dtype][0]
        return flat.cast(letter, self.shape) if self.size > 0 else flat.cast(letter)  # type: ignore[call-overload,no-any-return]

    def __buffer__(self, flags: int) -> memoryview:  # Python 3.12 and later
        return self.view

    @property
    def __array_interface__(self) -> Dict[str, Any]:
        return {"version": 3, "shape": self.shape, "typestr": _TYPES[self.dtype][2],
                "data": (self.address, self.readonly)}

    def __dlpack__(self, *, stream: object = None, max_version: object = None, dl_device: object = None,
                   copy: Optional[bool] = None) -> Any:
        # A capsule of the unversioned kind cannot say that it is read-only: such memory is given as a copy.
        source = self.copy() if copy or self.readonly else self
        return export(source.address, source.shape, source.dtype, source)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return 1, 0  # the CPU

    def numpy(self) -> Any:
        """The same memory as a numpy array."""
        return importlib.import_module("numpy").asarray(self)

    def copy(self) -> "Array":
        """The numbers in memory of their own."""
        new = Array(self.dtype, self.shape)
        ctypes.memmove(new.address, self.address, self.nbytes)
        return new

    def tolist(self) -> List[Any]:
        """Numbers in lists, as deep as there are axes."""
        if self.size == 0:
            return [Array(self.dtype, self.shape[1:]).tolist() for _ in range(self.shape[0])] if self.ndim > 1 else []
        return self.view.tolist()

    def tobytes(self) -> bytes:
        return ctypes.string_at(self.address, self.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Union[int, slice, Tuple[int, ...]]) -> Any:
        """A number, or an Array over the same memory: of one index (a row), or of a slice with step 1."""
        if isinstance(index, tuple):
            item: Any = self
            for i in index:
                item = item[i]
            return item
        length = self.shape[0]
        stride = self.nbytes // length if length else 0
        if isinstance(index, slice):
            start, stop, step = index.indices(length)
            if step != 1:
                raise IndexError("an Array is cut with step 1; its numpy() takes every index")
            count = max(stop - start, 0)
            return Array._over(self.dtype, (count,) + self.shape[1:], self.address + start * stride, self._owner,
                               self.readonly)
        i = index + length if index < 0 else index
        if not 0 <= i < length:
            raise IndexError("index %d of %d" % (index, length))
        if self.ndim == 1:
            kind = {"f32": ctypes.c_float, "f64": ctypes.c_double, "i32": ctypes.c_int32, "i64": ctypes.c_int64,
                    "u8": ctypes.c_uint8}[self.dtype]
            return kind.from_address(self.address + i * stride).value  # type: ignore[attr-defined]
        return Array._over(self.dtype, self.shape[1:], self.address + i * stride, self._owner, self.readonly)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self.shape[0])) if self.ndim > 1 else iter(self.tolist())

    def __repr__(self) -> str:
        shown = repr(self.tolist()) if self.size <= 12 else "..."
        return "emo.Array(%s, %s, %s)" % (self.dtype, list(self.shape), shown)


def from_dlpack(tensor: Any) -> Array:
    """An Array over the memory of something with __dlpack__, such as a torch tensor on the CPU."""
    address, shape, dtype, owner = imported(tensor)
    return Array._over(dtype, shape, address, owner, False)


class Borrowed:
    """Memory of the caller's during a call: its address, its shape, and what keeps it alive."""

    __slots__ = ("address", "shape", "owner")

    def __init__(self, address: int, shape: Tuple[int, ...], owner: object) -> None:
        self.address, self.shape, self.owner = address, shape, owner

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def borrow(value: Any, dtype: str, what: str, writable: bool = False) -> Borrowed:
    """The memory of an array-like: shared where it has the wanted elements in one piece, else (input only) a copy."""
    if isinstance(value, Array) and value.dtype == dtype and not (writable and value.readonly):
        return Borrowed(value.address, value.shape, value)
    if isinstance(value, Array):
        value = value.view
    view: Optional[memoryview] = None
    try:
        view = memoryview(value)
    except TypeError:
        if hasattr(value, "__dlpack__"):
            other = from_dlpack(value)
            if other.dtype == dtype:
                return Borrowed(other.address, other.shape, other)
            view = other.view
    if view is not None:
        return _of_view(view, dtype, what, writable)
    if writable:
        raise TypeError("%s must be writable memory (an emo.Array, a numpy array, array.array ...), not %s" %
                        (what, type(value).__name__))
    return _of_numbers(value, dtype, what)


def _of_view(view: memoryview, dtype: str, what: str, writable: bool) -> Borrowed:
    name = _name_of(view.format, view.itemsize)
    shape = tuple(view.shape or ())
    if name == dtype and view.c_contiguous and not (writable and view.readonly):
        return Borrowed(_address(view), shape, view)
    if writable:
        raise TypeError("%s must be writable %s in one piece, row-major; this is %s%s%s" %
                        (what, dtype, name or view.format, ", read-only" if view.readonly else "",
                         "" if view.c_contiguous else ", strided"))
    letter = _TYPES[dtype][0]
    if name == dtype:
        numbers = _array.array(letter, view.tobytes())
    else:
        kind = view.format.lstrip("@=<")
        if kind not in tuple("bBhHiIlLqQfd?"):
            raise TypeError("%s: elements of format %r are not understood" % (what, view.format))
        numbers = _converted(letter, memoryview(view.tobytes()).cast(kind), what)  # type: ignore[call-overload]
    return Borrowed(numbers.buffer_info()[0], shape, numbers)


def _of_numbers(value: Any, dtype: str, what: str) -> Borrowed:
    shape: List[int] = []
    level = value
    while not isinstance(level, (str, bytes)) and hasattr(level, "__len__") and hasattr(level, "__getitem__"):
        shape.append(len(level))
        if len(level) == 0:
            break
        level = level[0]
    if not shape:
        try:
            value = list(value)
        except TypeError:
            raise TypeError("%s must be an array or a list of numbers, not %s" % (what, type(value).__name__)) from None
        shape = [len(value)]
    flat: List[Any] = []

    def walk(part: Any, depth: int) -> None:
        if len(part) != shape[depth]:
            raise ValueError("%s: the lists have different lengths" % what)
        if depth + 1 == len(shape):
            flat.extend(part)
        else:
            for item in part:
                walk(item, depth + 1)

    walk(value, 0)
    numbers = _converted(_TYPES[dtype][0], flat, what)
    return Borrowed(numbers.buffer_info()[0], tuple(shape), numbers)


def _converted(letter: str, values: Any, what: str) -> Any:
    try:
        if letter in "fd":
            return _array.array(letter, [float(v) for v in values])
        return _array.array(letter, [v if isinstance(v, int) else _whole(v) for v in values])
    except OverflowError as error:
        raise ValueError("%s: %s" % (what, error)) from None
    except (AttributeError, TypeError, ValueError):
        raise TypeError("%s must hold numbers%s" % (what, "" if letter in "fd" else ", whole ones")) from None


def _whole(value: Any) -> int:
    return int(value.__index__())


class _Buffer(ctypes.Structure):
    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
                ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
                ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p)]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


def _address(view: memoryview) -> int:
    """Where the memory of a view is; it stays there as long as the view lives. (ctypes' own way wants it writable.)"""
    raw = _Buffer()
    _get_buffer(view, ctypes.byref(raw), 0)
    address = raw.buf or 0
    _release_buffer(ctypes.byref(raw))
    return int(address)


def matrix(value: Any, dtype: str, columns: int, what: str, writable: bool = False) -> Borrowed:
    """Memory of whole rows of `columns` elements."""
    memory = borrow(value, dtype, what, writable)
    if columns <= 0 or memory.size % columns != 0:
        raise ValueError("%s has shape %s; its last axis must have %d elements" % (what, list(memory.shape), columns))
    return memory


def exactly(value: Any, dtype: str, count: int, what: str, writable: bool = False) -> Borrowed:
    """Memory of exactly `count` elements."""
    memory = borrow(value, dtype, what, writable)
    if memory.size != count:
        raise ValueError("%s has shape %s; it must have %d elements" % (what, list(memory.shape), count))
    return memory
