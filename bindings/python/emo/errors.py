# SPDX-License-Identifier: Apache-2.0
"""Exceptions: one class for each status of the library, each also what Python calls such an error."""
from __future__ import annotations

from typing import Any, Dict, Type

from .enums import ErrorDomain, Status

__all__ = [
    "Error", "InvalidArgument", "OutOfMemory", "IoError", "NotFound", "FormatError", "Unsupported", "Busy", "Cancelled",
    "Mismatch", "RangeError", "Exists", "LimitError", "BackendError", "NumericError", "CommError", "InternalError",
]


class Error(Exception):
    """What every error of the library is.

    Attributes:
        status: the emo_status, as a Status
        domain: where it came from, as an ErrorDomain
        number: errno, offset, line or index: see ErrorDomain
        message: what was wrong, where, and what would be right
    """

    status: Status = Status.INTERNAL
    domain: ErrorDomain = ErrorDomain.NONE
    number: int = 0
    message: str = ""

    def __init__(self, message: str = "", *, domain: int = 0, number: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.number = number
        try:
            self.domain = ErrorDomain(domain)
        except ValueError:
            self.domain = ErrorDomain.NONE

    def __str__(self) -> str:
        return self.message


class InvalidArgument(Error, ValueError):
    """An argument is invalid; also a ValueError."""

    status = Status.INVALID_ARGUMENT


class OutOfMemory(Error, MemoryError):
    """Out of memory; also a MemoryError. Every object stays usable."""

    status = Status.OUT_OF_MEMORY


class _System(Error):
    """errno, where the operating system gave one."""

    errno: Any
    strerror: Any

    def __init__(self, message: str = "", *, domain: int = 0, number: int = 0) -> None:
        super().__init__(message, domain=domain, number=number)
        self.errno = number if domain == ErrorDomain.SYSTEM else None
        self.strerror = message


class IoError(_System, OSError):
    """Reading or writing failed; also an OSError, with errno."""

    status = Status.IO


class NotFound(_System, FileNotFoundError, LookupError):
    """No such file, tensor, domain ...; also a FileNotFoundError and a LookupError."""

    status = Status.NOT_FOUND


class FormatError(Error, ValueError):
    """Malformed data; also a ValueError."""

    status = Status.FORMAT


class Unsupported(Error, NotImplementedError):
    """Not supported; also a NotImplementedError."""

    status = Status.UNSUPPORTED


class Busy(Error, RuntimeError):
    """The object is in use by another thread; also a RuntimeError."""

    status = Status.BUSY


class Cancelled(Error):
    """A progress callback asked to stop. Every object stays usable."""

    status = Status.CANCELLED


class Mismatch(Error, ValueError):
    """The objects do not fit together; also a ValueError."""

    status = Status.MISMATCH


class RangeError(Error, ValueError):
    """An option is out of range; also a ValueError."""

    status = Status.RANGE


class Exists(_System, FileExistsError):
    """It exists already; also a FileExistsError."""

    status = Status.EXISTS


class LimitError(Error, ValueError):
    """A limit was exceeded; also a ValueError."""

    status = Status.LIMIT


class BackendError(Error, RuntimeError):
    """The back end failed; also a RuntimeError."""

    status = Status.BACKEND


class NumericError(Error, ArithmeticError):
    """A number is not finite; also an ArithmeticError."""

    status = Status.NUMERIC


class CommError(Error, ConnectionError):
    """Communication between ranks failed; also a ConnectionError."""

    status = Status.COMM


class InternalError(Error, RuntimeError):
    """Internal error, please report it."""

    status = Status.INTERNAL


BY_STATUS: Dict[int, Type[Error]] = {
    int(kind.status): kind
    for kind in (InvalidArgument, OutOfMemory, IoError, NotFound, FormatError, Unsupported, Busy, Cancelled, Mismatch,
                 RangeError, Exists, LimitError, BackendError, NumericError, CommError, InternalError)
}


def make(status: int, message: str, domain: int = 0, number: int = 0) -> Error:
    """The exception for a status."""
    error = BY_STATUS.get(status, Error)(message, domain=domain, number=number)
    return error
