# SPDX-License-Identifier: Apache-2.0
"""Keyword options to C structs: the defaults are the library's, the names and meanings those of the fields."""
from __future__ import annotations

import ctypes
import difflib
import os
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar

from . import _abi, enums
from ._call import Handle, Hooks
from ._lib import library

_F = TypeVar("_F")
_HIDDEN = re.compile(_abi.HIDDEN)
_INTEGERS: Dict[str, Tuple[int, int]] = {
    "int32_t": (-2**31, 2**31 - 1), "uint32_t": (0, 2**32 - 1), "int64_t": (-2**63, 2**63 - 1), "uint64_t": (0, 2**64 - 1),
    "size_t": (0, 2**64 - 1),
}

#: what fills in a field that is no plain value: (options, value) -> what must stay alive
Special = Callable[[Any, Any], object]


def names(struct: str) -> List[str]:
    """The options of a struct."""
    return [field for field, _, _ in _abi.STRUCTS[struct] if not _HIDDEN.match(field)]


def unknown(what: str, given: str, known: List[str]) -> TypeError:
    initials = "".join(word[0] for word in given.split("_") if word)
    near = [k for k in known if len(k) > 1 and k == initials]
    near += [k for k in difflib.get_close_matches(given, known, 3, 0.5) if k not in near]
    near += [k for k in known if k not in near and (given in k or k in given) and len(k) > 2]
    near = near[:3]
    hint = "did you mean %s?" % " or ".join(near) if near else "the options are %s" % ", ".join(known)
    return TypeError("%s has no option '%s'; %s" % (what, given, hint))


def enum_value(kind: str, value: Any, what: str) -> int:
    """A constant of a C enum: a member, its number, or its name in lower case."""
    cls = getattr(enums, _abi.ENUMS[kind])
    if isinstance(value, str):
        key = value.upper().replace("-", "_")
        for name in (key, "_" + key):
            if name in cls.__members__:
                return int(cls[name])
        raise ValueError("%s is %r; it is one of %s" % (what, value, ", ".join(m.lower() for m in cls.__members__)))
    return integer("int32_t", value, what)


def integer(kind: str, value: Any, what: str) -> int:
    """An integer that the C type holds."""
    try:
        number = value.__index__()
    except AttributeError:
        raise TypeError("%s must be an integer, not %s" % (what, type(value).__name__)) from None
    low, high = _INTEGERS[kind]
    if not low <= number <= high:
        raise ValueError("%s is %d; it must be %d to %d" % (what, number, low, high))
    return int(number)


class Options:
    """A filled-in options struct, with what must stay alive while the library may look at it."""

    def __init__(self, struct: str, what: str, given: Mapping[str, Any], special: Optional[Dict[str, Special]] = None,
                 hooks: Optional[Hooks] = None) -> None:
        self.struct: Any = library().new(struct)
        self.keep: List[object] = []
        self.handles: List[Handle] = []
        self.hooks = hooks
        special = special or {}
        kinds = {field: kind for field, kind, _ in _abi.STRUCTS[struct] if not _HIDDEN.match(field)}
        for name, value in given.items():
            if name not in kinds:
                raise unknown(what, name, list(kinds))
            self._set(name, kinds[name], value, "%s: option %s" % (what, name), special)
        if "progress" in kinds and hooks is not None:
            hooks.fill(self.struct.progress)
            self.keep.append(hooks)

    def _set(self, name: str, kind: str, value: Any, what: str, special: Dict[str, Special]) -> None:
        if name in special:
            self.keep.append(special[name](self.struct, value))
        elif kind == "emo_progress":
            if value is not None and not callable(value):
                raise TypeError("%s must be callable" % what)
            if self.hooks is None:
                raise TypeError("%s cannot be given here" % what)
            self.hooks.user = value
        elif kind in _abi.ENUMS:
            setattr(self.struct, name, enum_value(kind, value, what))
        elif kind in _INTEGERS:
            setattr(self.struct, name, integer(kind, value, what))
        elif kind in ("float", "double"):
            try:
                setattr(self.struct, name, float(value))
            except (TypeError, ValueError):
                raise TypeError("%s must be a number, not %s" % (what, type(value).__name__)) from None
        elif kind == "const char *":
            try:
                raw = None if value is None else os.fsencode(value)
            except TypeError:
                raise TypeError("%s must be text or a path, not %s" % (what, type(value).__name__)) from None
            if raw is not None and b"\0" in raw:
                raise ValueError("%s holds a NUL" % what)
            setattr(self.struct, name, raw)
            self.keep.append(raw)
        elif kind.startswith(("const emo_", "emo_")) and kind.endswith("*"):
            self._set_handle(name, kind.replace("const", "").strip(" *"), value, what)
        else:
            raise TypeError("%s cannot be given from Python" % what)

    def _set_handle(self, name: str, kind: str, value: Any, what: str) -> None:
        if value is None:
            setattr(self.struct, name, None)
            return
        if kind == "emo_pool_policy" and isinstance(value, str):
            from .pool import Pool

            value = Pool(value)
        if not isinstance(value, Handle) or value._release != kind + "_release":
            raise TypeError("%s must be an emo.%s, not %s" % (what, _CLASSES.get(kind, kind), type(value).__name__))
        # The pin holds the C object until the options are gone: until the call that they are for has returned.
        from ._call import Pin

        self.keep.append(Pin(value))
        self.handles.append(value)
        setattr(self.struct, name, value._reference.address)


_CLASSES = {"emo_mask": "Mask", "emo_pool_policy": "Pool", "emo_dataset": "Dataset", "emo_comm": "Comm"}


def int32_array(values: Any, what: str) -> Any:
    """A C array of int32_t from integers."""
    checked = [integer("int32_t", v, what) for v in values]
    return (ctypes.c_int32 * max(len(checked), 1))(*checked)


def describe(struct: str) -> str:
    """The options of a struct for a docstring, one a line."""
    lines = []
    for field, kind, doc in _abi.STRUCTS[struct]:
        if _HIDDEN.match(field):
            continue
        lines.append("    %s: %s" % (field, doc or kind))
    return "\n".join(lines)


def documented(struct: str) -> Callable[[_F], _F]:
    """Adds the options of a struct to a docstring."""

    def add(function: _F) -> _F:
        function.__doc__ = "%s\n\n    Options (keywords, with the library's defaults):\n%s\n" % (
            (function.__doc__ or "").rstrip(), "\n".join("    " + line for line in describe(struct).split("\n")))
        return function

    return add
