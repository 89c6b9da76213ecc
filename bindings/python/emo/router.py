# SPDX-License-Identifier: Apache-2.0
"""EMO's router alone: hidden states and documents in, experts, weights and losses out, and the way back."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Union

from ._call import Handle, Pin, call, create, get
from ._lib import library
from ._opt import Options, documented, int32_array, names, unknown
from .array import Array, Borrowed, borrow, exactly, matrix
from .mask import Mask
from .pool import Pool
from .runtime import Runtime, runtime_or_default

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RouterBatch, RouterOptions

__all__ = ["Router", "Routing"]


class Routing:
    """What forward() found. T tokens, E experts, n of them routed, K chosen per token, D documents that are not empty.

    Attributes:
        indices: i32 [T, K] chosen, best first, then the shared ones; -1 where fewer are allowed
        weights: f32 [T, K]
        logits: f32 [T, n], or [T, E] with a softmax over shared experts
        scores: f32 [T, n]; 0 outside the pool
        score_sum: f32 [n]
        counts: i32 [E] tokens per expert on this rank
        counts_all: i64 [n] summed over the ranks
        document_begin: i32 [D + 1]
        pool_size: i32 [D] size asked for by the policy
        usage: f32 [D, n] probabilities before the pool, summed over the document
        allowed: u8 [D, n] 1: in the pool and the mask
        balance_loss, z_loss: unweighted; loss: both with their weights
    """

    def __init__(self, struct: Any, pin: object, batch: object, copy: bool) -> None:
        self._struct = struct
        self._batch = batch  # backward reads it
        t, e, n, k, d = struct.tokens, struct.experts, struct.routed, struct.top_k, struct.documents
        self.tokens, self.experts, self.routed, self.top_k, self.documents = t, e, n, k, d
        self.balance_loss: float = struct.balance_loss
        self.z_loss: float = struct.z_loss
        self.loss: float = struct.loss

        def array(dtype: str, name: str, *shape: int) -> Array:
            view = Array._over(dtype, shape, getattr(struct, name), pin)
            return view.copy() if copy else view

        self.indices = array("i32", "indices", t, k)
        self.weights = array("f32", "weights", t, k)
        self.logits = array("f32", "logits", t, struct.logits_stride)
        self.scores = array("f32", "scores", t, n)
        self.score_sum = array("f32", "score_sum", n)
        self.counts = array("i32", "counts", e)
        self.counts_all = array("i64", "counts_all", n)
        self.document_begin = array("i32", "document_begin", d + 1)
        self.pool_size = array("i32", "pool_size", d)
        self.usage = array("f32", "usage", d, n)
        self.allowed = array("u8", "allowed", d, n)

    def __repr__(self) -> str:
        return "<emo.Routing of %d tokens in %d documents, loss %g>" % (self.tokens, self.documents, self.loss)


@documented("emo_router_options")
class Router(Handle):
    """EMO's router for another engine: hidden, experts and top_k must be given. It starts with zero weights."""

    _release = "emo_router_release"

    def __init__(self, *, runtime: Optional[Runtime] = None, **options: "Unpack[RouterOptions]") -> None:
        rt = runtime_or_default(runtime)

        def set_always(struct: Any, ids: Optional[Sequence[int]]) -> object:
            array = int32_array(ids or (), "always")
            struct.always, struct.n_always = (ctypes.addressof(array) if ids else None), len(ids or ())
            return array

        filled = Options("emo_router_options", "emo.Router", options, {"always": set_always})
        self.hidden: int = filled.struct.hidden
        self.experts: int = filled.struct.experts
        self.routed: int = filled.struct.experts - filled.struct.shared
        self.top_k: int = filled.struct.top_k
        self._adopt(create(Router, "emo_router_create", rt, filled.struct), rt, filled.handles)

    @property
    def weights(self) -> Array:
        """W, f32 [experts, hidden]: a read-only view of the router's own. Set it to copy new ones in."""
        return Array._over("f32", (self.experts, self.hidden), get("emo_router_weights", self), Pin(self))

    @weights.setter
    def weights(self, weights: Any) -> None:
        memory = exactly(weights, "f32", self.experts * self.hidden, "weights")
        call("emo_router_set_weights", self, memory.address, memory.size)

    @property
    def score_bias(self) -> Optional[Array]:
        """The bias that experts are chosen with, f32 [routed], a copy; None: none. Set it to change it."""
        address = get("emo_router_score_bias", self)
        return Array._over("f32", (self.routed,), address, None).copy() if address else None

    @score_bias.setter
    def score_bias(self, bias: Any) -> None:
        if bias is None:
            call("emo_router_set_score_bias", self, None, 0)
            return
        memory = exactly(bias, "f32", self.routed, "score_bias")
        call("emo_router_set_score_bias", self, memory.address, memory.size)

    def update_score_bias(self, rate: float) -> None:
        """bias += rate * sign(mean(counts) - counts), with the counts of the last forward over all ranks."""
        call("emo_router_update_score_bias", self, float(rate))

    def forward(self, x: Any, *, documents: Optional[Any] = None, document_ids: Optional[Any] = None,
                pool: Union[Pool, str, None] = None, mask: Optional[Mask] = None, copy: bool = True,
                **batch: "Unpack[RouterBatch]") -> Routing:
        """Routes a batch.

        Args:
            x: f32 [tokens, hidden] or [rows, seq_len, hidden]; not copied, needed until backward() has run
            documents: i64 [documents + 1] token offsets from 0 to tokens; None: each row is a document
            document_ids: i64 [documents] global ids, keys of the random draws; None: counted from first_document
            pool: an emo.Pool or its words; None: no pools
            copy: False gives views of the router's memory, valid until its next forward()
            batch: mode ("train" or "eval"), first_document, step, loss_div_factor, microbatch, microbatches, first_token
        """
        memory = matrix(x, "f32", self.hidden, "x")
        tokens = memory.size // self.hidden
        rows = memory.shape[0] if len(memory.shape) == 3 else 1
        keep: List[Borrowed] = [memory]
        for name in batch:
            if name not in _BATCH:
                raise unknown("emo.Router.forward", name,
                              ["x", "documents", "document_ids", "pool", "mask", "copy"] + list(_BATCH))
        filled = Options("emo_router_batch", "emo.Router.forward", batch)
        struct = filled.struct
        if not batch.get("rows"):
            struct.rows, struct.seq_len = rows, tokens // rows if rows else 0
        elif struct.rows * struct.seq_len != tokens:
            raise ValueError("rows * seq_len is %d, x has %d tokens" % (struct.rows * struct.seq_len, tokens))
        struct.x = memory.address
        if documents is not None:
            begin = borrow(documents, "i64", "documents")
            if begin.size < 2:
                raise ValueError("documents holds %d offsets; it needs 2 or more" % begin.size)
            struct.document_begin, struct.n_documents = begin.address, begin.size - 1
            keep.append(begin)
        if document_ids is not None:
            count = struct.n_documents or struct.rows
            ids = exactly(document_ids, "i64", count, "document_ids")
            struct.document_ids = ids.address
            keep.append(ids)
        if isinstance(pool, str):
            pool = Pool(pool)
        routing = library().new("emo_routing")
        call("emo_router_forward", self, struct, pool, mask, routing)
        return Routing(routing, Pin(self), (struct, keep), copy)

    def backward(self, routing: Routing, d_weights: Any = None, *, dx: Any = None, dw: Any = None) -> None:
        """The gradient of sum(d_weights * weights) + loss, for the routing of the last forward().

        Args:
            d_weights: f32 [tokens, K]; None: zero
            dx: f32 [tokens, hidden], writable, added to; None: not wanted
            dw: f32 [experts, hidden], writable, added to; None: not wanted
        """
        d = None if d_weights is None else exactly(d_weights, "f32", routing.tokens * routing.top_k, "d_weights")
        gx = None if dx is None else exactly(dx, "f32", routing.tokens * self.hidden, "dx", writable=True)
        gw = None if dw is None else exactly(dw, "f32", self.experts * self.hidden, "dw", writable=True)
        call("emo_router_backward", self, routing._struct, d and d.address, gx and gx.address, gw and gw.address)


_BATCH = [name for name in names("emo_router_batch") if name not in ("x", "n_documents", "document_begin", "document_ids")]


