# SPDX-License-Identifier: Apache-2.0
"""Training with document pools: losses, AdamW, schedules, accumulation, checkpoints and resume."""
from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from ._call import Handle, Hooks, call, create, get
from ._lib import STRUCTS, ctype, library
from ._opt import Options, documented, integer
from .data import Dataset
from .enums import TrainPart
from .errors import NotFound
from .model import Model, _config_bytes
from .runtime import Runtime, runtime_or_default

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .model import Config
    from .options import TrainOptions

__all__ = ["Trainer", "StepMetrics", "ProfileEntry", "TrainPlan", "schedule_lr", "train_plan"]


class StepMetrics(NamedTuple):
    """What a step did."""

    skipped: bool  #: the weights stayed: the gradients were not finite, or no token counted
    step: int  #: from 1
    steps: int  #: planned in all
    tokens: int  #: trained so far, all ranks
    loss: float  #: cross-entropy, nats a token
    lm_z_loss: float  #: with its weight
    balance_loss: float  #: unscaled, mean over the MoE layers
    router_z_loss: float  #: unscaled, mean over the MoE layers
    total_loss: float
    grad_norm: float  #: before clipping
    lr: float
    seconds: float  #: of this step
    tokens_per_second: float
    valid_loss: float  #: NaN when there was no validation at this step
    max_load: float  #: largest share of an expert over its fair share, worst layer
    filtered_rows: int  #: rows that the repetition filter kept out of the loss, all ranks


class ProfileEntry(NamedTuple):
    """Time of one part of training in one direction."""

    part: str
    backward: bool
    calls: int
    seconds: float


def _metrics(struct: Any) -> StepMetrics:
    values = {name: getattr(struct, name) for name in StepMetrics._fields}
    values["skipped"] = bool(values["skipped"])
    return StepMetrics(**values)


@documented("emo_train_options")
class Trainer(Handle):
    """A trainer of a model on documents.

        with emo.Trainer(model, data, pool="uniform:4:32", max_steps=100) as trainer:
            for step in trainer:
                print(step.step, step.loss)

    run() does the same without a loop, calling on_step(metrics) after each step; a true result stops it with
    emo.Cancelled. Ctrl-C stops between micro-batches and raises KeyboardInterrupt; an exception in a callback goes on
    here. Each of them leaves everything usable: go on, checkpoint(), or close. The model is the trainer's until that is
    closed (emo.Busy for others)."""

    _release = "emo_trainer_release"

    def __init__(self, model: Model, data: Dataset, **options: "Unpack[TrainOptions]") -> None:
        hooks = Hooks()

        def set_on_step(struct: Any, value: Optional[Callable[[StepMetrics], object]]) -> object:
            if value is None:
                return None
            user, weak = value, weakref.ref(hooks)

            def on_step(_: object, at: int) -> int:
                hooks = weak()
                if hooks is None:
                    return 1
                try:
                    return 1 if user(_metrics(STRUCTS["emo_step_metrics"].from_address(at))) else 0
                except BaseException as error:  # it goes on in the caller
                    hooks.fail(error)
                    return 1

            struct.on_step = ctype("int32_t (*)(void *, const emo_step_metrics *)")(on_step)
            return struct.on_step

        filled = Options("emo_train_options", "emo.Trainer", options, {"on_step": set_on_step}, hooks)
        self._hooks = hooks
        self._model = model
        address = create(Trainer, "emo_trainer_create", model, data, filled.struct, hooks=hooks)
        self._adopt(address, model, data, hooks, filled.handles, filled.struct.on_step)

    @property
    def model(self) -> Model:
        return self._model

    @property
    def at(self) -> int:
        """The step the trainer is at; 0 before the first."""
        return int(get("emo_trainer_at", self))

    @property
    def steps(self) -> int:
        """The planned number of steps; 0 while it is not known."""
        return int(get("emo_trainer_steps", self))

    @property
    def replayed(self) -> int:
        """Steps that a device replayed from graphs of earlier ones; 0 on the CPU."""
        return int(get("emo_trainer_replayed", self))

    def step(self) -> StepMetrics:
        """One optimizer step, with what belongs to it: validation, metrics, checkpoints, on_step."""
        struct = library().new("emo_step_metrics")
        call("emo_trainer_step", self, struct, hooks=self._hooks)
        return _metrics(struct)

    def run(self) -> None:
        """Trains until the end."""
        call("emo_trainer_run", self, hooks=self._hooks)

    def __iter__(self) -> Iterator[StepMetrics]:
        """One step a turn, until the end."""
        while self.steps == 0 or self.at < self.steps:
            yield self.step()

    def checkpoint(self) -> None:
        """Writes a checkpoint into the run folder (option out) now."""
        call("emo_trainer_checkpoint", self, hooks=self._hooks)

    def profile(self) -> List[ProfileEntry]:
        """Where the time went so far, with option profile=1."""
        found: List[ProfileEntry] = []
        while True:
            entry: Any = library().new("emo_train_profile_entry")
            try:
                call("emo_trainer_profile", self, len(found), entry)
            except NotFound:
                return found
            name = get("emo_train_part_name", entry.part).decode()
            found.append(ProfileEntry(name, bool(entry.backward), entry.calls, entry.seconds))

    def __repr__(self) -> str:
        return "<emo.Trainer closed>" if self.closed else "<emo.Trainer at step %d of %d>" % (self.at, self.steps)


class TrainPlan(NamedTuple):
    """The memory that training takes, in bytes: of the device, but for pinned."""

    fits: Optional[bool]  #: whether there is room; None: how much is free is not known
    parameters: int  #: of the model
    trained: int  #: of those, the ones with gradients
    tokens: int  #: of a micro-batch on this rank
    weights: int  #: f32 masters, which passes compute with
    gradients: int  #: f32
    moments: int  #: of AdamW: two of f32
    saved: int  #: activations that the forward keeps for the backward
    activations: int  #: the other arrays of a micro-batch
    workspace: int  #: scratch, shared by all operators
    tables: int  #: expert tables, rotary tables, balancing counts, sums
    total: int  #: all of the above
    micro_batch: int  #: of the total, what grows with the tokens of a micro-batch
    pinned: int  #: host memory for transfers
    available: int  #: free on the device at the moment; 0: not known
    workspaces: Dict[str, int]  #: scratch by the part of a step that takes it


@documented("emo_train_options")
def train_plan(config: "Config", *, device: Optional[str] = None, plugin: Any = None, compute: Any = "f32",
               runtime: Optional[Runtime] = None, **options: "Unpack[TrainOptions]") -> TrainPlan:
    """The memory that training a model with this config.json takes, found without allocating any. `device` is "cpu" or
    one of a back end, such as "cuda"; with `plugin`, the path of that back end, no such device needs to be there."""
    filled = Options("emo_train_options", "emo.train_plan", options, hooks=Hooks())
    how = Options("emo_train_plan_options", "emo.train_plan", {"device": device, "plugin": plugin, "compute": compute})
    raw = _config_bytes(config)
    plan: Any = library().new("emo_train_plan")
    call("emo_train_plan_json", runtime_or_default(runtime), raw, len(raw), filled.struct, how.struct, plan)
    parts = {get("emo_train_part_name", part.value).decode(): int(plan.workspaces[part.value]) for part in TrainPart}
    values = {name: int(getattr(plan, name)) for name in TrainPlan._fields[1:-1]}
    return TrainPlan(fits=None if plan.fits < 0 else bool(plan.fits), workspaces={k: v for k, v in parts.items() if v},
                     **values)


@documented("emo_train_options")
def schedule_lr(step: int, **options: "Unpack[TrainOptions]") -> float:
    """The learning rate of a step (from 1) under given options, max_steps among them."""
    filled = Options("emo_train_options", "emo.schedule_lr", options, hooks=Hooks())
    lr = ctypes.c_double()
    call("emo_schedule_lr", filled.struct, integer("int64_t", step, "step"), ctypes.byref(lr))
    return lr.value


