# SPDX-License-Identifier: Apache-2.0
"""The shared library: where it is found, the layouts of its structs, the prototypes of its functions.

What it knows of C stands in _abi.py, once; here it becomes ctypes. A library that does not fit is an ImportError.
"""
from __future__ import annotations

import ctypes
import os
import pathlib
import sys
from typing import Any, Dict, List, Optional, Tuple, Type

from . import _abi

_SCALARS: Dict[str, Any] = {
    "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t, "float": ctypes.c_float, "double": ctypes.c_double, "uint8_t": ctypes.c_uint8,
    "char": ctypes.c_char, "void": None,
}

#: ctypes structures by their C name
STRUCTS: Dict[str, Type[ctypes.Structure]] = {}


def ctype(text: str) -> Any:
    """The ctypes type of a C type as _abi.py writes it. Pointers other than strings are plain addresses."""
    text = text.strip()
    if "(*)" in text:
        result, arguments = text.split("(*)", 1)
        kinds = arguments.strip()[1:-1]
        return ctypes.CFUNCTYPE(ctype(result), *[ctype(kind) for kind in kinds.split(",")])
    if text == "const char *":
        return ctypes.c_char_p
    if text.endswith("*"):
        return ctypes.c_void_p
    if text.endswith("]"):
        base, count = text[:-1].split("[")
        return ctype(base) * int(count)
    if text.startswith("const "):
        text = text[len("const "):]
    if text in _SCALARS:
        return _SCALARS[text]
    if text in _abi.ENUMS:
        return ctypes.c_int32
    return _struct(text)


def _struct(name: str) -> Type[ctypes.Structure]:
    if name not in STRUCTS:
        fields = [(field, ctype(kind)) for field, kind, _ in _abi.STRUCTS[name]]
        STRUCTS[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return STRUCTS[name]


for _name in _abi.STRUCTS:
    _struct(_name)


def _soname() -> str:
    major = _abi.VERSION.split(".")[0]
    if sys.platform == "darwin":
        return "libemo.%s.dylib" % major
    if sys.platform == "win32":
        return "emo.dll"
    return "libemo.so.%s" % major


def _bundled() -> Optional[str]:
    folder = pathlib.Path(__file__).resolve().parent / "lib"
    for name in (_soname(), "libemo.so", "libemo.dylib", "emo.dll"):
        if (folder / name).exists():
            return str(folder / name)
    return None


class Library:
    """The loaded library; its functions are attributes with their prototypes, made when first asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._dll = ctypes.CDLL(path)
        except OSError as error:
            raise ImportError("emo: cannot load %s: %s" % (path, error)) from None
        self.version = self._check()

    def _check(self) -> str:
        try:
            version_string = self._dll.emo_version_string
            struct_size = self._dll.emo_struct_size
        except AttributeError as missing:
            raise ImportError("emo %s: %s is not a libemo of this version: %s" %
                              (_abi.VERSION, self.path, missing)) from None
        version_string.restype = ctypes.c_char_p
        struct_size.restype = ctypes.c_size_t
        struct_size.argtypes = (ctypes.c_char_p,)
        version = str((version_string() or b"?").decode())

        def refuse(why: str) -> ImportError:
            return ImportError("emo: the package is of version %s and %s is of version %s: %s" %
                               (_abi.VERSION, self.path, version, why))

        # Below 1.0 a minor version may break the ABI; from then on only a major version may.
        ours, theirs = _abi.VERSION.split("."), version.split(".")
        parts = 2 if ours[0] == "0" else 1
        if ours[:parts] != theirs[:parts]:
            raise refuse("they do not fit")
        for name, struct in STRUCTS.items():
            size = int(struct_size(name.encode()))
            expected = ctypes.sizeof(struct)
            grown = size > expected and _abi.STRUCTS[name][0][0] == "struct_size"
            if size != expected and not grown:
                raise refuse("%s has %d bytes, not %d" % (name, size, expected) if size else "it does not know " + name)
        for name in _abi.FUNCTIONS:
            if not hasattr(self._dll, name):
                raise refuse("it lacks %s" % name)
        return version

    def __getattr__(self, name: str) -> Any:
        if name not in _abi.FUNCTIONS:
            raise AttributeError("libemo has no function " + name)
        result, parameters = _abi.FUNCTIONS[name]
        function = getattr(self._dll, name)
        function.restype = ctype(result)
        function.argtypes = [ctype(kind) for kind, _ in parameters]
        setattr(self, name, function)
        return function

    def new(self, name: str) -> Any:
        """A struct with the library's defaults, as large as this package knows it."""
        struct = STRUCTS[name]()
        if _abi.STRUCTS[name][0][0] == "struct_size":
            self.emo_struct_init(name.encode(), ctypes.addressof(struct), ctypes.sizeof(struct))
        return struct


_loaded: Optional[Library] = None
_tried: List[Tuple[str, str]] = []


def load_library(path: "str | os.PathLike[str] | None" = None) -> Library:
    """Loads libemo, once a process.

    Without a path: the copy inside the package, else the file that the environment variable EMO_LIBRARY names, else what
    the system's linker knows as libemo. ImportError when there is none, or when it does not fit this package.
    """
    global _loaded
    if _loaded is not None:
        if path is not None and os.path.realpath(path) != os.path.realpath(_loaded.path):
            raise ImportError("emo: %s is loaded already; load_library() comes before anything else" % _loaded.path)
        return _loaded
    if path is not None:
        _loaded = Library(os.fspath(path))
        return _loaded
    bundled = _bundled()
    if bundled is not None:
        _loaded = Library(bundled)
        return _loaded
    named = os.environ.get("EMO_LIBRARY")
    if named:
        _loaded = Library(named)
        return _loaded
    try:
        ctypes.CDLL(_soname())
    except OSError:
        raise ImportError("emo: found no libemo: none inside the package (pip install bundles one), EMO_LIBRARY is not "
                          "set, and the system does not know %s; install it, or call emo.load_library(path)" %
                          _soname()) from None
    _loaded = Library(_soname())
    return _loaded


def library() -> Library:
    """The loaded library; loads it when it is not."""
    return _loaded if _loaded is not None else load_library()


def load_if_there() -> None:
    """At import: loads what is there and refuses what does not fit; where there is none the first use says so."""
    if _bundled() is not None or os.environ.get("EMO_LIBRARY"):
        load_library()
        return
    try:
        ctypes.CDLL(_soname())
    except OSError:
        return
    load_library()
