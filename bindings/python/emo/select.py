# SPDX-License-Identifier: Apache-2.0
"""Choosing an expert subset for a few documents."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, List, Optional

from ._call import Hooks, call, make
from ._opt import Options, documented
from .mask import Mask
from .model import Model
from .stats import Stats, as_dataset

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .model import Documents
    from .options import SelectOptions

__all__ = ["select", "experts", "from_stats"]


@documented("emo_select_options")
def select(model: Model, calibration: "Optional[Documents]" = None, **options: "Unpack[SelectOptions]") -> Mask:
    """Chooses `keep` experts per layer, the shared ones included: the best ones for the calibration documents (a text,
    several, or a Dataset). method is "usage", "layerwise", "easy_ep" or "random", which needs no documents."""
    hooks = Hooks()
    filled = Options("emo_select_options", "emo.select", options, hooks=hooks)
    data = None if calibration is None else as_dataset(calibration, model, "emo.select")
    return make(Mask, "emo_select", model, data, filled.struct, keep=model._keep, hooks=hooks)


@documented("emo_select_options")
def experts(model: Model, calibration: "Optional[Documents]" = None,
            **options: "Unpack[SelectOptions]") -> List[List[int]]:
    """The same choice as a list of ids for each layer, which may leave shared experts out (keep_shared): what
    Model.prune(keep=...) takes."""
    hooks = Hooks()
    filled = Options("emo_select_options", "emo.select.experts", options, hooks=hooks)
    data = None if calibration is None else as_dataset(calibration, model, "emo.select.experts")
    layers = model.info.layers
    count, offsets = ctypes.c_size_t(), (ctypes.c_int32 * (layers + 1))()
    call("emo_select_experts", model, data, filled.struct, None, 0, ctypes.byref(count), offsets, hooks=hooks)
    ids = (ctypes.c_int32 * max(count.value, 1))()
    call("emo_select_experts", model, data, filled.struct, ids, max(count.value, 1), ctypes.byref(count), offsets,
         hooks=hooks)
    return [list(ids[offsets[i]:offsets[i + 1]]) for i in range(layers)]


@documented("emo_select_options")
def from_stats(model: Model, stats: Stats, **options: "Unpack[SelectOptions]") -> Mask:
    """Usage or EASY-EP selection from statistics collected before."""
    hooks = Hooks()
    filled = Options("emo_select_options", "emo.select.from_stats", options, hooks=hooks)
    return make(Mask, "emo_select_from_stats", model, stats, filled.struct, keep=model._keep, hooks=hooks)
