# SPDX-License-Identifier: Apache-2.0
"""Evaluation by task: choice, generation and perplexity tasks that a JSON file describes, and what subsets of experts
leave of each score."""
from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Tuple, Union

from ._call import Handle, Hooks, Pin, call, create, get, make, path_bytes, text
from ._lib import STRUCTS
from ._opt import Options, documented, int32_array, integer
from .mask import Mask
from .model import Model
from .runtime import Runtime, runtime_or_default

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import TaskRunOptions, TaskSetOptions

__all__ = ["Tasks", "TaskResults", "TaskInfo", "TaskGroup", "TaskColumn", "TaskScore", "TaskItem"]


class TaskInfo(NamedTuple):
    """What a task is."""

    name: str
    type: int  #: emo.enums.TaskType
    metrics: Tuple[str, ...]  #: the first is the one that groups and tables show
    items: int
    validation: int  #: items that experts can be chosen from
    examples: int  #: shown in front of each item
    most_choices: int
    lower_is_better: bool


class TaskGroup(NamedTuple):
    """Tasks whose first metrics are averaged."""

    name: str
    members: Tuple[int, ...]  #: the index of a task, or -1 - the index of an earlier group
    by_items: bool


class TaskColumn(NamedTuple):
    """What a column of results is."""

    kind: int  #: emo.enums.TaskColumnKind
    keep: int
    mask: int
    draws: int
    share: float  #: routed experts kept, of all routed experts


class TaskScore(NamedTuple):
    """A score."""

    value: float
    error: float  #: standard error of a mean over items
    items: int
    truncated: int  #: items that lost the beginning of their prompt


class TaskItem(NamedTuple):
    """What came of one item."""

    source: str
    line: int
    answer: int  #: the right choice; -1
    chosen: int  #: -1
    truncated: bool
    logprobs: Tuple[float, ...]
    unconditional: Optional[Tuple[float, ...]]
    tokens: Tuple[int, ...]  #: scored tokens of each choice
    text: Optional[str]  #: what was generated
    value: float


def _array(kind: Any, address: Optional[int], count: int) -> Optional[Tuple[Any, ...]]:
    return None if not address else tuple((kind * count).from_address(address))


class Tasks(Handle):
    """The tasks of a file, with their items; a sequence of TaskInfos."""

    _release = "emo_task_set_release"

    @documented("emo_task_set_options")
    def __init__(self, path: "Union[str, os.PathLike[str]]", *, runtime: Optional[Runtime] = None,
                 **options: "Unpack[TaskSetOptions]") -> None:
        """Reads a task file and the data files it names."""
        rt = runtime_or_default(runtime)
        hooks = Hooks()
        filled = Options("emo_task_set_options", "emo.Tasks", options, hooks=hooks)
        self._adopt(create(Tasks, "emo_task_set_open", rt, path_bytes(path), filled.struct, hooks=hooks), rt)

    @classmethod
    @documented("emo_task_set_options")
    def from_json(cls, json: str, *, runtime: Optional[Runtime] = None, **options: "Unpack[TaskSetOptions]") -> "Tasks":
        """The same from the text of a task file."""
        rt = runtime_or_default(runtime)
        hooks = Hooks()
        filled = Options("emo_task_set_options", "emo.Tasks.from_json", options, hooks=hooks)
        raw = json.encode("utf-8", "surrogatepass")
        return make(cls, "emo_task_set_from_json", rt, raw, len(raw), filled.struct, keep=(rt,), hooks=hooks)

    def __len__(self) -> int:
        return int(get("emo_task_set_tasks", self))

    def __getitem__(self, index: int) -> TaskInfo:
        n = len(self)
        i = index + n if index < 0 else index
        if not 0 <= i < n:
            raise IndexError("task %d of %d" % (index, n))
        pin = Pin(self)
        info: Any = STRUCTS["emo_task_info"]()
        call("emo_task_set_task", self, i, info)
        metrics = tuple(get("emo_task_set_metric", self, i, m).decode() for m in range(info.metrics))
        out = TaskInfo(info.name.decode("utf-8"), info.type, metrics, info.items, info.validation, info.examples,
                       info.most_choices, bool(info.lower_is_better))
        del pin
        return out

    @property
    def groups(self) -> List[TaskGroup]:
        """The groups, those of tasks with "by" included."""
        out = []
        pin = Pin(self)
        for i in range(int(get("emo_task_set_groups", self))):
            group: Any = STRUCTS["emo_task_group"]()
            call("emo_task_set_group", self, i, group)
            members = _array(ctypes.c_int32, group.members, group.count) or ()
            out.append(TaskGroup(group.name.decode("utf-8"), members, bool(group.by_items)))
        del pin
        return out

    def prompt(self, task: int, item: int, choice: int = 0) -> str:
        """The text in front of what is scored or generated."""
        return text("emo_task_set_prompt", self, integer("int32_t", task, "task"), integer("int64_t", item, "item"),
                    integer("int32_t", choice, "choice"))

    def continuation(self, task: int, item: int, choice: int = 0) -> str:
        """The text that is scored after it."""
        return text("emo_task_set_continuation", self, integer("int32_t", task, "task"),
                    integer("int64_t", item, "item"), integer("int32_t", choice, "choice"))

    @documented("emo_task_run_options")
    def run(self, model: Model, **options: "Unpack[TaskRunOptions]") -> "TaskResults":
        """Scores every task in every column. keep is a list of numbers of experts, 0 for all; masks a list of Masks."""
        hooks = Hooks()

        def keep(struct: Any, value: Any) -> object:
            array = int32_array(value, "emo.Tasks.run: option keep")
            struct.keep, struct.n_keep = ctypes.addressof(array), len(value)
            return array

        def masks(struct: Any, value: Any) -> object:
            for mask in value:
                if not isinstance(mask, Mask):
                    raise TypeError("emo.Tasks.run: option masks must be a list of emo.Mask, not of %s" %
                                    type(mask).__name__)
            pins = [Pin(mask) for mask in value]
            array = (ctypes.c_void_p * max(len(value), 1))(*[mask._reference.address for mask in value])
            struct.masks, struct.n_masks = ctypes.addressof(array), len(value)
            return pins, array

        filled = Options("emo_task_run_options", "emo.Tasks.run", options, {"keep": keep, "masks": masks}, hooks)
        return make(TaskResults, "emo_task_run", model, self, filled.struct, keep=(*model._keep, self), hooks=hooks)


class TaskResults(Handle):
    """Scores of a run; a column for each entry of keep and masks, and of the random controls."""

    _release = "emo_task_results_release"

    @property
    def columns(self) -> List[TaskColumn]:
        """What the columns are."""
        out = []
        for i in range(int(get("emo_task_results_columns", self))):
            column: Any = STRUCTS["emo_task_column"]()
            call("emo_task_results_column", self, i, column)
            out.append(TaskColumn(column.kind, column.keep, column.mask, column.draws, column.share))
        return out

    def _score(self, name: str, *arguments: int) -> TaskScore:
        score: Any = STRUCTS["emo_task_score"]()
        call(name, self, *[integer("int32_t", a, "the index") for a in arguments], score)
        return TaskScore(score.value, score.error, score.items, score.truncated)

    def score(self, task: int, column: int = 0, metric: int = 0) -> TaskScore:
        """The score of a task by one of its metrics."""
        return self._score("emo_task_results_score", task, column, metric)

    def group(self, group: int, column: int = 0) -> TaskScore:
        """The mean over a group's members."""
        return self._score("emo_task_results_group", group, column)

    def item(self, task: int, column: int, item: int) -> TaskItem:
        """What came of one item (of the first draw)."""
        pin = Pin(self)
        view: Any = STRUCTS["emo_task_item"]()
        call("emo_task_results_item", self, integer("int32_t", task, "task"), integer("int32_t", column, "column"),
             integer("int64_t", item, "item"), view)
        n = view.choices
        out = TaskItem(view.source.decode("utf-8"), view.line, view.answer, view.chosen, bool(view.truncated),
                       _array(ctypes.c_double, view.logprobs, n) or (), _array(ctypes.c_double, view.unconditional, n),
                       _array(ctypes.c_int32, view.tokens, n) or (),
                       None if view.text is None else view.text.decode("utf-8", "replace"), view.value)
        del pin
        return out

    def mask(self, task: int, column: int) -> Optional[Mask]:
        """The experts a task was scored with (the first draw's); None: all."""
        out = ctypes.c_void_p()
        call("emo_task_results_mask", self, integer("int32_t", task, "task"), integer("int32_t", column, "column"),
             ctypes.byref(out))
        return Mask._wrap(out.value, *self._keep) if out.value else None
