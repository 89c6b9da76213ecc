# SPDX-License-Identifier: Apache-2.0
"""DLPack through ctypes: memory of the CPU to and from capsules, without copies."""
from __future__ import annotations

import ctypes
from typing import Any, Dict, Tuple

_CPU = 1
_USED = b"used_dltensor"
_NAME = b"dltensor"
#: (code, bits): code 0 signed, 1 unsigned, 2 float, 6 bool
_KINDS: Dict[str, Tuple[int, int]] = {"f32": (2, 32), "f64": (2, 64), "i32": (0, 32), "i64": (0, 64), "u8": (1, 8)}
_NAMES: Dict[Tuple[int, int], str] = {kind: name for name, kind in _KINDS.items()}
_NAMES[(6, 8)] = "u8"


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int), ("dtype", _Type),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]

_api = ctypes.pythonapi
_new = _api.PyCapsule_New
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_new.restype = ctypes.py_object
# The destructor of a capsule sees it when nobody holds it any more: as an address, never as an object.
_is_valid_at = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))

#: what was exported and is not deleted yet: address of the struct -> everything that must stay
_alive: Dict[int, Tuple[object, ...]] = {}


def _delete(address: int) -> None:
    _alive.pop(address, None)


def _destroy(capsule: int) -> None:
    if _is_valid_at(capsule, _NAME):  # nobody took it: a consumer renames it and calls the deleter itself
        _alive.pop(_pointer_at(capsule, _NAME), None)


_deleter = _Deleter(_delete)
_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy)
# Tensors of others may be freed at the very end of the process: these two are never taken away.
for _f in (_deleter, _destructor):
    _api.Py_IncRef(ctypes.py_object(_f))


def export(address: int, shape: Tuple[int, ...], dtype: str, owner: object) -> Any:
    """A capsule "dltensor" over memory that `owner` keeps alive."""
    managed = _Managed()
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    code, bits = _KINDS[dtype]
    managed.tensor.data = address
    managed.tensor.device = _Device(_CPU, 0)
    managed.tensor.ndim = len(shape)
    managed.tensor.dtype = _Type(code, bits, 1)
    managed.tensor.shape = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _deleter
    at = ctypes.addressof(managed)
    _alive[at] = (managed, sizes, owner)
    try:
        return _new(at, _NAME, ctypes.cast(_destructor, ctypes.c_void_p))
    except BaseException:
        del _alive[at]
        raise


def imported(tensor: Any) -> Tuple[int, Tuple[int, ...], str, object]:
    """(address, shape, dtype, owner) of something with __dlpack__. The capsule is not taken: it owns the memory."""
    if hasattr(tensor, "__dlpack_device__"):
        device = tensor.__dlpack_device__()
        if int(device[0]) != _CPU:
            raise BufferError("the tensor is not on the CPU")
    capsule = tensor.__dlpack__() if hasattr(tensor, "__dlpack__") else tensor
    if not _is_valid(capsule, _NAME):
        raise BufferError("not a DLPack capsule, or one that was used before")
    managed = ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents
    t = managed.tensor
    if t.device.type != _CPU:
        raise BufferError("the tensor is not on the CPU")
    name = _NAMES.get((t.dtype.code, t.dtype.bits)) if t.dtype.lanes == 1 else None
    if name is None:
        raise BufferError("the tensor's element type is not one of f32, f64, i32, i64, u8")
    shape = tuple(t.shape[i] for i in range(t.ndim))
    if t.strides:
        expected = 1
        for i in reversed(range(t.ndim)):
            if shape[i] != 1 and t.strides[i] != expected:
                raise BufferError("the tensor is strided; make it contiguous first")
            expected *= shape[i]
    return int(t.data or 0) + int(t.byte_offset), shape, name, capsule
