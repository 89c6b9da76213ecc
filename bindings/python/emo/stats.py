# SPDX-License-Identifier: Apache-2.0
"""Router statistics over calibration documents: usage, and EASY-EP scores. They can be saved and merged."""
from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Optional, Union

from ._call import Handle, Hooks, call, get, make, path_bytes
from ._opt import Options, documented, integer
from .array import Array
from .data import Dataset
from .model import Model
from .runtime import Runtime, runtime_or_default

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .model import Documents
    from .options import StatsOptions

__all__ = ["Stats"]


def as_dataset(documents: "Documents", model: Model, what: str) -> Dataset:
    """A Dataset, or one made of a text or an iterable of texts with the model's tokenizer."""
    if isinstance(documents, Dataset):
        return documents
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("%s: the model has no tokenizer; give an emo.Dataset" % what)
    texts = [documents] if isinstance(documents, str) else documents
    return Dataset.from_texts(texts, tokenizer, runtime=model._keep[0])  # type: ignore[arg-type]


class Stats(Handle):
    """What the router of every layer gave its experts, summed over tokens. `a + b` are those of both."""

    _release = "emo_stats_release"

    @classmethod
    @documented("emo_stats_options")
    def collect(cls, model: Model, documents: "Documents", **options: "Unpack[StatsOptions]") -> "Stats":
        """Runs documents (a text, several, or a Dataset) through the model."""
        hooks = Hooks()
        filled = Options("emo_stats_options", "emo.Stats.collect", options, hooks=hooks)
        data = as_dataset(documents, model, "emo.Stats.collect")
        return make(cls, "emo_stats_collect", model, data, filled.struct, keep=model._keep, hooks=hooks)

    @classmethod
    def load(cls, path: "Union[str, os.PathLike[str]]", *, runtime: Optional[Runtime] = None) -> "Stats":
        """Reads what save() wrote."""
        rt = runtime_or_default(runtime)
        return make(cls, "emo_stats_load", rt, path_bytes(path), keep=(rt,))

    def save(self, path: "Union[str, os.PathLike[str]]") -> None:
        """Writes JSON, replacing the file in one step."""
        call("emo_stats_save", self, path_bytes(path))

    @property
    def tokens(self) -> int:
        """Tokens the sums are over, end-of-text tokens included."""
        return int(get("emo_stats_tokens", self))

    @property
    def layers(self) -> int:
        """Layers, dense ones included."""
        return int(get("emo_stats_layers", self))

    def _row(self, name: str, layer: int) -> Array:
        count = ctypes.c_size_t()
        index = integer("int32_t", layer, "layer")
        call(name, self, index, None, 0, ctypes.byref(count))
        out = Array("f64", (count.value,))
        call(name, self, index, out.address, count.value, ctypes.byref(count))
        return out

    def probs(self, layer: int) -> Array:
        """Mean router probability of each expert of a layer, f64 [experts]."""
        return self._row("emo_stats_probs", layer)

    def easy_ep(self, layer: int) -> Array:
        """EASY-EP score of each expert of a layer, f64 [experts]; NotFound when they were not collected."""
        return self._row("emo_stats_easy_ep", layer)

    def __add__(self, other: object) -> "Stats":
        """The statistics of both sets of documents together."""
        if not isinstance(other, Stats):
            return NotImplemented
        return make(Stats, "emo_stats_merge", self, other, keep=self._keep)

    merge = __add__

    def select(self, model: Model, **options: Any) -> Any:
        """Experts chosen from these statistics: see emo.select.from_stats()."""
        from .select import from_stats

        return from_stats(model, self, **options)
