# SPDX-License-Identifier: Apache-2.0
"""libemo from Python: train and run EMO mixture-of-experts models, and choose, restrict and prune their experts.

    import emo
    model = emo.load("model", subset=emo.Mask.load("health.json"))
    for piece in model.generate("A fever in small children", tokens=200):
        print(piece, end="", flush=True)

Every object is a context manager and may be closed early, in any order. Options are keywords with the names and the
defaults of the C library; errors are exceptions by status, all of them emo.Error. Progress callbacks get (phase, done,
total) and cancel with a true result; Ctrl-C stops what runs on the main thread. The GIL is free while the library works.
"""
from . import checkpoint, comm, enums, errors, evaluate, select, stats, tasks, train
from ._call import status_name, status_text
from ._lib import library, load_if_there, load_library
from .array import Array, from_dlpack
from .bench import Bench
from .checkpoint import Run
from .comm import Comm, CommPlugin
from .data import Choices, ChoiceItem, Dataset, Document, TextDocument, Texts
from .enums import (BalanceScope, Batching, BenchKind, CachePolicy, DeviceKind, Dtype, ErrorDomain, ExportFormat, Isa,
                    LogLevel, OptimizerOn, PoolKind, PoolScope, Recompute, RouterGating, RouterMode, RouterSharedMode,
                    Schedule, SelectMethod, State, Status, StopReason, TaskColumnKind, TaskType, TokenType, TrainOnly,
                    TrainPart)
from .errors import (BackendError, Busy, Cancelled, CommError, Error, Exists, FormatError, InternalError, InvalidArgument,
                     IoError, LimitError, Mismatch, NotFound, NumericError, OutOfMemory, RangeError, Unsupported)
from .evaluate import ChoiceScores, EvalResult, Evaluation
from .mask import Mask
from .model import CacheEntry, CacheStats, ExportInfo, Model, ModelInfo, load
from .pool import Pool
from .router import Router, Routing
from .runtime import Allocator, Device, Executor, Runtime, default_runtime, set_default_runtime
from .session import Session, SessionStatistics
from .source import Source
from .stats import Stats
from .tasks import TaskColumn, TaskGroup, TaskInfo, TaskItem, TaskResults, Tasks, TaskScore
from .tokenizer import Decoder, Tokenizer
from .train import ProfileEntry, StepMetrics, Trainer, TrainPlan, schedule_lr, train_plan

load_if_there()


def version() -> str:
    """The version of the loaded library."""
    return library().version


def __getattr__(name: str) -> str:
    if name == "__version__":
        return version()
    raise AttributeError("module 'emo' has no attribute %r" % name)


__all__ = [
    "Allocator", "Array", "BackendError", "BalanceScope", "Batching", "Bench", "BenchKind", "Busy", "CacheEntry",
    "CachePolicy", "CacheStats", "Cancelled", "ChoiceItem", "ChoiceScores", "Choices", "Comm", "CommError",
    "CommPlugin", "Dataset", "Decoder", "Device", "DeviceKind", "Document", "Dtype", "Error", "ErrorDomain",
    "EvalResult", "Evaluation", "Executor", "Exists", "ExportFormat", "ExportInfo", "FormatError", "InternalError",
    "InvalidArgument", "IoError", "Isa", "LimitError", "LogLevel", "Mask", "Mismatch", "Model", "ModelInfo", "NotFound",
    "NumericError", "OptimizerOn", "OutOfMemory", "Pool", "PoolKind", "PoolScope", "ProfileEntry", "RangeError",
    "Recompute", "Router", "RouterGating", "RouterMode", "RouterSharedMode", "Routing", "Run", "Runtime", "Schedule",
    "SelectMethod", "Session", "SessionStatistics", "Source", "State", "Stats", "Status", "StepMetrics", "StopReason",
    "TaskColumn", "TaskColumnKind", "TaskGroup", "TaskInfo", "TaskItem", "TaskResults", "TaskScore", "TaskType",
    "Tasks", "TextDocument", "Texts", "TokenType", "Tokenizer", "TrainOnly", "TrainPart", "TrainPlan", "Trainer",
    "Unsupported", "checkpoint", "comm", "default_runtime", "enums", "errors", "evaluate", "from_dlpack", "library",
    "load", "load_library", "schedule_lr", "select", "set_default_runtime", "stats", "status_name", "status_text",
    "tasks", "train", "train_plan", "version",
]
