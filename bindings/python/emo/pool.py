# SPDX-License-Identifier: Apache-2.0
"""Document pools: how many experts the tokens of one document may share."""
from __future__ import annotations

from typing import Any, Optional, Sequence, Union

from ._call import Handle, call, create, get, make, text, text_bytes
from ._opt import enum_value, int32_array, integer
from .enums import PoolKind, PoolScope
from .runtime import Runtime, runtime_or_default

__all__ = ["Pool"]


class Pool(Handle):
    """A policy. Sizes count routed experts; which experts are in a pool, the router decides.

    Pool("uniform:4:32") reads the words of the program: none, fixed:P, uniform:MIN:MAX, mass:M:MIN:MAX,
    scheduled:MIN:STEPS, prompt:P; str(pool) gives them back. Wherever an option takes a pool it takes these words too.
    """

    _release = "emo_pool_policy_release"

    def __init__(self, words: str, *, runtime: Optional[Runtime] = None) -> None:
        rt = runtime_or_default(runtime)
        self._adopt(create(Pool, "emo_pool_policy_parse", rt, text_bytes(words, "a pool")), rt)

    @classmethod
    def _make(cls, name: str, runtime: Optional[Runtime], *arguments: Any) -> "Pool":
        rt = runtime_or_default(runtime)
        return make(cls, name, rt, *arguments, keep=(rt,))

    @classmethod
    def none(cls, *, runtime: Optional[Runtime] = None) -> "Pool":
        """No pool: every expert."""
        return cls._make("emo_pool_policy_create_none", runtime)

    @classmethod
    def fixed(cls, pool: int, *, runtime: Optional[Runtime] = None) -> "Pool":
        """Always `pool` experts."""
        return cls._make("emo_pool_policy_create_fixed", runtime, integer("int32_t", pool, "pool"))

    @classmethod
    def uniform(cls, min: int, max: int, *, runtime: Optional[Runtime] = None) -> "Pool":
        """Uniform in [min, max] per document and layer; half way in evaluation."""
        return cls._make("emo_pool_policy_create_uniform", runtime, integer("int32_t", min, "min"),
                         integer("int32_t", max, "max"))

    @classmethod
    def mass(cls, mass: float, min: int, max: int, *, runtime: Optional[Runtime] = None) -> "Pool":
        """The experts that hold `mass` of the document's probability, clamped to [min, max]."""
        return cls._make("emo_pool_policy_create_mass", runtime, float(mass), integer("int32_t", min, "min"),
                         integer("int32_t", max, "max"))

    @classmethod
    def scheduled(cls, min: int, decay_steps: int, *, runtime: Optional[Runtime] = None) -> "Pool":
        """From all experts down to `min` over decay_steps."""
        return cls._make("emo_pool_policy_create_scheduled", runtime, integer("int32_t", min, "min"),
                         integer("int64_t", decay_steps, "decay_steps"))

    @classmethod
    def table(cls, sizes: Sequence[Sequence[int]], *, runtime: Optional[Runtime] = None) -> "Pool":
        """Sizes one by one: sizes[layer][document]."""
        layers = len(sizes)
        documents = len(sizes[0]) if layers else 0
        if any(len(row) != documents for row in sizes):
            raise ValueError("sizes: every layer needs as many documents")
        flat = int32_array([size for row in sizes for size in row], "sizes")
        return cls._make("emo_pool_policy_create_table", runtime, layers, documents, flat)

    @classmethod
    def from_prompt(cls, pool: int, *, runtime: Optional[Runtime] = None) -> "Pool":
        """`pool` experts chosen by the prompt and kept for what is generated."""
        return cls._make("emo_pool_policy_from_prompt", runtime, integer("int32_t", pool, "pool"))

    def __str__(self) -> str:
        return text("emo_pool_policy_describe", self)

    def __repr__(self) -> str:
        return "<emo.Pool closed>" if self.closed else "<emo.Pool %s>" % self

    @property
    def kind(self) -> PoolKind:
        return PoolKind(get("emo_pool_policy_kind", self))

    @property
    def scope(self) -> PoolScope:
        """Whose tokens share a pool; set it to "document", "row" or "prompt"."""
        return PoolScope(get("emo_pool_policy_scope", self))

    @scope.setter
    def scope(self, scope: Union[PoolScope, int, str]) -> None:
        call("emo_pool_policy_set_scope", self, enum_value("emo_pool_scope", scope, "scope"))

    def set_forced(self, forced: int) -> "Pool":
        """The last `forced` routed experts are in every pool; gives the pool back."""
        call("emo_pool_policy_set_forced", self, integer("int32_t", forced, "forced"))
        return self

    def set_eval_pool(self, pool: int) -> "Pool":
        """The pool in evaluation, instead of the policy's own rule (0); gives the pool back."""
        call("emo_pool_policy_set_eval_pool", self, integer("int32_t", pool, "pool"))
        return self
