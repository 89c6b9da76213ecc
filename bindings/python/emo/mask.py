# SPDX-License-Identifier: Apache-2.0
"""Expert masks: sets of experts, layer by layer, with the operators of sets."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from ._call import Handle, call, create, get, make, path_bytes
from ._call import text as _text
from ._lib import library
from ._opt import int32_array, integer
from .runtime import Runtime, runtime_or_default

__all__ = ["Mask"]


class Mask(Handle):
    """A set of (layer, expert) pairs.

    It restricts the router at run time, says which experts are read from disk, and which remain in a pruned model. The
    last `shared` experts of a layer, and always-active ones, are members of every mask.

        health | code, health & code, health - code, ~health, health ^ code
        len(health)            # experts kept, over all layers
        (0, 17) in health      # expert 17 of layer 0
        health[0]              # the kept ids of layer 0, ascending
        for layer, expert in health: ...

    Args:
        experts: experts of each layer, shared ones included; 0 for a dense layer
        shared: shared experts of each layer, or one number for all
        keep: the ids to keep, a sequence for each layer; None: every expert
        always: ids of always-active experts, a sequence for each layer
    """

    _release = "emo_mask_release"
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, experts: Sequence[int], shared: Union[int, Sequence[int]] = 0,
                 keep: Optional[Sequence[Iterable[int]]] = None, *, always: Optional[Sequence[Sequence[int]]] = None,
                 runtime: Optional[Runtime] = None) -> None:
        rt = runtime_or_default(runtime)
        counts = list(experts)
        if isinstance(shared, int):
            shared = [min(shared, n) for n in counts]
        if len(shared) != len(counts):
            raise ValueError("shared has %d layers, experts has %d" % (len(shared), len(counts)))
        n_array, s_array = int32_array(counts, "experts"), int32_array(shared, "shared")
        full = 1 if keep is None else 0
        if always is None:
            address = create(Mask, "emo_mask_create", rt, integer("int32_t", len(counts), "layers"), n_array, s_array, full)
        else:
            if len(always) != len(counts):
                raise ValueError("always has %d layers, experts has %d" % (len(always), len(counts)))
            offsets = [0]
            for ids in always:
                offsets.append(offsets[-1] + len(ids))
            o_array = int32_array(offsets, "always")
            a_array = int32_array([i for ids in always for i in ids], "always")
            options: Any = library().new("emo_mask_options")
            options.layers, options.full = len(counts), full
            options.experts, options.shared = ctypes.addressof(n_array), ctypes.addressof(s_array)
            options.always_offsets, options.always = ctypes.addressof(o_array), ctypes.addressof(a_array)
            address = create(Mask, "emo_mask_create_with", rt, options)
        self._adopt(address, rt)
        if keep is not None:
            rows = list(keep)
            if len(rows) != len(counts):
                raise ValueError("keep has %d layers, experts has %d" % (len(rows), len(counts)))
            for layer, wanted in enumerate(rows):
                for expert in wanted:
                    self.add(layer, expert)

    @classmethod
    def load(cls, path: "Union[str, os.PathLike[str]]", *, runtime: Optional[Runtime] = None) -> "Mask":
        """Reads a mask from a JSON file."""
        rt = runtime_or_default(runtime)
        return make(cls, "emo_mask_load", rt, path_bytes(path), keep=(rt,))

    @classmethod
    def from_json(cls, text: str, *, runtime: Optional[Runtime] = None) -> "Mask":
        """Reads a mask from JSON text."""
        rt = runtime_or_default(runtime)
        raw = text.encode("utf-8")
        return make(cls, "emo_mask_from_json", rt, raw, len(raw), keep=(rt,))

    def save(self, path: "Union[str, os.PathLike[str]]") -> None:
        """Writes the JSON to a file, replacing it in one step."""
        call("emo_mask_save", self, path_bytes(path))

    def to_json(self) -> str:
        return _text("emo_mask_to_json", self)

    @property
    def n_layers(self) -> int:
        """Layers, dense ones included."""
        return int(get("emo_mask_layers", self))

    @property
    def layers(self) -> List[Tuple[int, ...]]:
        """The kept ids of every layer, ascending; an empty tuple for a dense layer."""
        return [self[layer] for layer in range(self.n_layers)]

    @property
    def experts(self) -> List[int]:
        """Experts of every layer, shared ones included; 0 for a dense layer."""
        return [int(get("emo_mask_experts", self, layer)) for layer in range(self.n_layers)]

    @property
    def shared(self) -> List[int]:
        """How many of them are shared: the last ids."""
        return [int(get("emo_mask_shared", self, layer)) for layer in range(self.n_layers)]

    def is_always(self, layer: int, expert: int) -> bool:
        """Whether the expert stays in every mask of this shape: shared or always-active."""
        return bool(get("emo_mask_is_always", self, integer("int32_t", layer, "layer"),
                        integer("int32_t", expert, "expert")))

    def count(self, layer: int) -> int:
        """Kept experts of a layer, shared ones included."""
        return int(get("emo_mask_count", self, integer("int32_t", layer, "layer")))

    def _layer(self, layer: int) -> int:
        n = self.n_layers
        i = integer("int32_t", layer, "layer")
        if not -n <= i < n:
            raise IndexError("layer %d of %d" % (i, n))
        return i % n

    def __getitem__(self, layer: int) -> Tuple[int, ...]:
        index = self._layer(layer)
        capacity = self.count(index)
        ids = (ctypes.c_int32 * max(capacity, 1))()
        count = ctypes.c_int32()
        call("emo_mask_list", self, index, ids, capacity, ctypes.byref(count))
        return tuple(ids[:count.value])

    def add(self, layer: int, expert: int) -> None:
        """Switches an expert on."""
        call("emo_mask_set", self, self._layer(layer), integer("int32_t", expert, "expert"), 1)

    def discard(self, layer: int, expert: int) -> None:
        """Switches an expert off; InvalidArgument for one that is in every mask."""
        call("emo_mask_set", self, self._layer(layer), integer("int32_t", expert, "expert"), 0)

    def __contains__(self, pair: object) -> bool:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError("ask for (layer, expert)")
        return bool(get("emo_mask_get", self, integer("int32_t", pair[0], "layer"),
                        integer("int32_t", pair[1], "expert")))

    def __len__(self) -> int:
        return sum(self.count(layer) for layer in range(self.n_layers))

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Tuple[int, int]]:
        return ((layer, expert) for layer, ids in enumerate(self.layers) for expert in ids)

    def _with(self, other: object, name: str) -> Any:
        if not isinstance(other, Mask):
            return NotImplemented
        return make(Mask, name, self, other, keep=self._keep)

    def __or__(self, other: object) -> "Mask":
        """What either keeps; both masks need the same shape."""
        return self._with(other, "emo_mask_union")  # type: ignore[no-any-return]

    def __and__(self, other: object) -> "Mask":
        """What both keep."""
        return self._with(other, "emo_mask_intersect")  # type: ignore[no-any-return]

    def __sub__(self, other: object) -> "Mask":
        """What this one keeps and the other does not; shared experts stay."""
        return self._with(other, "emo_mask_subtract")  # type: ignore[no-any-return]

    def __xor__(self, other: object) -> "Mask":
        """What exactly one of them keeps."""
        if not isinstance(other, Mask):
            return NotImplemented
        return (self | other) - (self & other)

    def __invert__(self) -> "Mask":
        """What this one does not keep, and the shared experts."""
        return make(Mask, "emo_mask_complement", self, keep=self._keep)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return bool(get("emo_mask_equal", self, other))

    def __le__(self, other: object) -> bool:
        """Whether every kept expert is kept in the other one."""
        if not isinstance(other, Mask):
            return NotImplemented
        return self.experts == other.experts and all(set(a) <= set(b) for a, b in zip(self.layers, other.layers))

    def __ge__(self, other: object) -> bool:
        return other <= self if isinstance(other, Mask) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self <= other and self != other if isinstance(other, Mask) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return other < self if isinstance(other, Mask) else NotImplemented

    union, intersection, difference = __or__, __and__, __sub__

    def copy(self) -> "Mask":
        """An independent copy."""
        return make(Mask, "emo_mask_clone", self, keep=self._keep)

    __copy__ = copy

    def __repr__(self) -> str:
        if self.closed:
            return "<emo.Mask closed>"
        return "<emo.Mask of %d of %d experts in %d layers>" % (len(self), sum(self.experts), self.n_layers)
