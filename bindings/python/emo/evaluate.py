# SPDX-License-Identifier: Apache-2.0
"""Measuring a model: loss per domain on documents, accuracy on multiple-choice items, logits."""
from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple

from ._call import Hooks, call
from ._lib import STRUCTS
from ._opt import Options, documented
from .array import Array, borrow
from .data import Choices
from .model import Model
from .stats import as_dataset

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .model import Documents
    from .options import EvalOptions

__all__ = ["EvalResult", "Evaluation", "ChoiceScores", "documents", "choices", "logits"]


class EvalResult(NamedTuple):
    """Sums over documents or items, and what follows from them."""

    documents: int
    tokens: int  #: scored tokens
    bytes: int  #: UTF-8 bytes of the texts that are scored
    loss_sum: float  #: nats
    items: int  #: multiple choice
    correct: int

    @property
    def loss(self) -> float:
        """Nats a token; NaN where there are none."""
        return self.loss_sum / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        return self.loss_sum / math.log(2.0) / self.bytes if self.bytes else math.nan

    @property
    def accuracy(self) -> float:
        return self.correct / self.items if self.items else math.nan


class Evaluation(NamedTuple):
    """The result of documents()."""

    total: EvalResult
    domains: Dict[str, EvalResult]
    documents: List[EvalResult]  #: of each document, when asked for

    @property
    def loss(self) -> float:
        return self.total.loss

    @property
    def perplexity(self) -> float:
        return self.total.perplexity

    @property
    def bits_per_byte(self) -> float:
        return self.total.bits_per_byte


class ChoiceScores(NamedTuple):
    """The result of choices()."""

    total: EvalResult
    answers: List[int]  #: the index chosen for each item

    @property
    def accuracy(self) -> float:
        return self.total.accuracy


def _result(struct: Any) -> EvalResult:
    return EvalResult(*[getattr(struct, name) for name in EvalResult._fields])


@documented("emo_eval_options")
def documents(model: Model, documents: "Documents", *, per_document: bool = False,
              **options: "Unpack[EvalOptions]") -> Evaluation:
    """Scores every token of the documents (a text, several, or a Dataset) exactly once."""
    hooks = Hooks()
    filled = Options("emo_eval_options", "emo.evaluate", options, hooks=hooks)
    data = as_dataset(documents, model, "emo.evaluate")
    kind = STRUCTS["emo_eval_result"]
    total, names, count = kind(), data.domains, len(data)
    domains = (kind * max(len(names), 1))()
    each = (kind * max(count, 1))() if per_document else None
    call("emo_eval_documents", model, data, filled.struct, total, domains, each, hooks=hooks)
    by_domain = {name: _result(domains[i]) for i, name in enumerate(names) if domains[i].documents}
    return Evaluation(_result(total), by_domain, [_result(r) for r in each[:count]] if each is not None else [])


@documented("emo_eval_options")
def choices(model: Model, items: Choices, **options: "Unpack[EvalOptions]") -> ChoiceScores:
    """Each choice is scored by its log-likelihood after the context, divided by its bytes; the highest wins."""
    hooks = Hooks()
    filled = Options("emo_eval_options", "emo.evaluate.choices", options, hooks=hooks)
    total: Any = STRUCTS["emo_eval_result"]()
    n = len(items)
    answers = (ctypes.c_int32 * max(n, 1))()
    call("emo_eval_choices", model, items, filled.struct, total, answers, hooks=hooks)
    return ChoiceScores(_result(total), list(answers[:n]))


@documented("emo_eval_options")
def logits(model: Model, tokens: Any, **options: "Unpack[EvalOptions]") -> Array:
    """Logits of every position of one sequence (a list or array of ids), f32 [tokens, vocab]; no cache is used."""
    hooks = Hooks()
    filled = Options("emo_eval_options", "emo.evaluate.logits", options, hooks=hooks)
    memory = borrow(tokens, "i32", "tokens")
    out = Array("f32", (memory.size, model.info.vocab))
    call("emo_eval_logits", model, memory.address, memory.size, filled.struct, out.address, out.size, hooks=hooks)
    return out
