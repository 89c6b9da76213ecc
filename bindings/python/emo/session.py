# SPDX-License-Identifier: Apache-2.0
"""Inference: a KV cache, one or several sequences, sampling, and work in bounded slices."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Iterator, List, NamedTuple, Optional, Sequence, Union

from ._call import Handle, Hooks, call, create, get, make, text_bytes
from ._lib import STRUCTS, library
from ._opt import Options, documented, integer
from .array import Array, borrow
from .enums import State, StopReason
from .mask import Mask
from .model import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import SequenceOptions, SessionOptions

__all__ = ["Session", "SessionStatistics"]


class SessionStatistics(NamedTuple):
    """What a session did. Experts are counted with the option count_experts=1: each once for every batch and layer that
    reads it, shared ones included."""

    sequences: int  #: taken now
    batches: int  #: finished
    batch_sequences: int  #: sum of their sequences
    batch_tokens: int  #: sum of their tokens
    batch_experts: int  #: sum of the experts they read
    batch_expert_bytes: int  #: sum of the bytes of those experts' weights
    decode_batches: int  #: of these, batches of one token for each sequence; the next four likewise
    decode_sequences: int
    decode_experts: int
    decode_expert_bytes: int
    last_sequences: int  #: of the last batch; the next two likewise
    last_experts: int
    last_expert_bytes: int
    longest_wait: int  #: batches that a sequence with work was left out of, one after the other
    page_tokens: int  #: tokens of a page
    page_bytes: int  #: bytes of a page, all layers
    pages_most: int  #: there may be at most
    pages_used: int  #: hold something now, be it of sequences that stopped, which give it up if need be
    pages_shared: int  #: of these, in more than one sequence
    preempted: int  #: times a sequence had to give its pages back
    shared_tokens: int  #: of prompts, whose keys and values were there already


@documented("emo_session_options")
class Session(Handle):
    """Sequences of tokens that a model continues.

        session = model.session(max_tokens=60)
        for piece in session.generate("A fever in small children"):
            print(piece, end="", flush=True)

    Or in slices, for a program that draws frames meanwhile: append(), then advance(ms=4) until it gives State.DONE.
    Results do not depend on how the work is cut. A session belongs to one thread at a time (emo.Busy otherwise).
    Ctrl-C and a progress callback that gives true stop the present call; the next one goes on where it was."""

    _release = "emo_session_release"

    def __init__(self, model: Model, **options: "Unpack[SessionOptions]") -> None:
        hooks = Hooks()

        def set_stop(struct: Any, value: Union[str, Sequence[str], None]) -> object:
            words = [value] if isinstance(value, str) else list(value or ())
            raw = [text_bytes(word, "a stop string") for word in words]
            array = (ctypes.c_char_p * max(len(raw), 1))(*raw)
            struct.stop = ctypes.addressof(array) if raw else None
            struct.n_stop = len(raw)
            return array

        filled = Options("emo_session_options", "emo.Session", options, {"stop": set_stop}, hooks)
        self._hooks = hooks
        self._model = model
        self._ahead = ""
        self._holds_back = bool(options.get("stop"))
        self._adopt(create(Session, "emo_session_create", model, filled.struct), model, hooks, filled.handles)

    @property
    def model(self) -> Model:
        return self._model

    def append(self, what: Union[str, Any], sequence: int = 0) -> "Session":
        """Appends a text or token ids (a list or array) to a sequence; gives the session back."""
        if isinstance(what, str):
            if sequence == 0:
                call("emo_session_append_text", self, text_bytes(what), hooks=self._hooks)
            else:
                call("emo_session_append_text_to", self, integer("int32_t", sequence, "sequence"), text_bytes(what),
                     hooks=self._hooks)
            return self
        memory = borrow(what, "i32", "tokens")
        call("emo_session_append_tokens", self, integer("int32_t", sequence, "sequence"), memory.address, memory.size)
        return self

    def add(self, **options: "Unpack[SequenceOptions]") -> int:
        """Takes a free sequence and gives its number, for append() and what is asked of it later. With options it has
        its own instead of the session's."""
        sequence = ctypes.c_int32()
        filled = Options("emo_sequence_options", "Session.add", options)
        call("emo_session_add", self, filled.struct if options else None, ctypes.byref(sequence))
        return sequence.value

    def cancel(self, sequence: int) -> None:
        """Stops a sequence where it is (StopReason.CANCELLED) and gives its memory back."""
        call("emo_session_cancel", self, integer("int32_t", sequence, "sequence"))

    def remove(self, sequence: int) -> None:
        """Forgets a sequence, which is free then."""
        call("emo_session_remove", self, integer("int32_t", sequence, "sequence"))

    @property
    def statistics(self) -> SessionStatistics:
        """What the session did since it was created or reset."""
        struct = library().new("emo_session_statistics")
        call("emo_session_get_statistics", self, struct)
        return SessionStatistics(*(getattr(struct, name) for name in SessionStatistics._fields))

    def advance(self, *, ms: Optional[float] = None, ns: int = 0, steps: int = 0, tokens: int = 0) -> State:
        """Works until something is there or the budget is used up.

        Args:
            ms, ns: wall-clock limit in milliseconds or nanoseconds; nothing: none
            steps: operator steps
            tokens: return when a sequence has generated so many in this call; 0: after each
        Returns:
            State.PENDING: call again; State.TEXT: there is new output; State.DONE: nothing is left to do
        """
        budget: Any = STRUCTS["emo_budget"]()
        budget.ns = integer("uint64_t", ns if ms is None else max(int(ms * 1e6), 1), "ns")
        budget.steps = integer("int32_t", steps, "steps")
        budget.tokens = integer("int32_t", tokens, "tokens")
        state = ctypes.c_int32()
        call("emo_session_advance", self, budget, ctypes.byref(state), hooks=self._hooks)
        return State(state.value)

    @property
    def text(self) -> str:
        """Text of sequence 0 that is new since the last advance()."""
        return str(get("emo_session_text", self).decode("utf-8"))

    def text_of(self, sequence: int) -> str:
        """The same for any sequence."""
        return str(get("emo_session_text_of", self, integer("int32_t", sequence, "sequence")).decode("utf-8"))

    def generate(self, prompt: Union[str, Sequence[int], None] = None, tokens: Optional[int] = None) -> Iterator[str]:
        """Appends a prompt and gives the text of sequence 0 in pieces, until it stops or `tokens` were generated.

        Leaving the loop early leaves the session as it is: call generate() without a prompt to go on.
        """
        if prompt is not None:
            self.append(prompt)
        return self._pieces(tokens)

    def _pieces(self, tokens: Optional[int]) -> Iterator[str]:
        begin, shown = self.count(0), ""
        if tokens is not None and tokens <= 0:
            return
        while True:
            state = self.advance()
            piece = self._fresh(self.text)
            shown += piece
            if piece:
                yield piece
            if state == State.DONE:
                return
            if tokens is not None and self.count(0) - begin >= tokens:
                break
        # The session holds back what may become a stop string; whoever asked for so many tokens gets it now.
        tokenizer = self._model.tokenizer if self._holds_back else None
        if tokenizer is not None:
            with tokenizer.decoder(skip_special=1) as decoder:
                whole = "".join(decoder.push(token) for token in self.generated(0)[begin:])
            if whole.startswith(shown) and len(whole) > len(shown):
                self._ahead = whole[len(shown):]
                yield self._ahead

    def _fresh(self, piece: str) -> str:
        """A piece without what was given ahead of it."""
        same = 0
        while same < min(len(self._ahead), len(piece)) and self._ahead[same] == piece[same]:
            same += 1
        if piece:
            self._ahead = self._ahead[same:] if same == len(piece) else ""
        return piece[same:]

    def count(self, sequence: int = 0) -> int:
        """Tokens generated so far, eos included."""
        return int(get("emo_session_generated", self, integer("int32_t", sequence, "sequence"), None, None))

    @property
    def replayed(self) -> int:
        """Batches of tokens that a device replayed from graphs of earlier ones; 0 on the CPU."""
        return int(get("emo_session_replayed", self))

    def generated(self, sequence: int = 0) -> List[int]:
        """Tokens generated since the session began or was reset, eos included."""
        tokens = ctypes.c_void_p()
        n = int(get("emo_session_generated", self, integer("int32_t", sequence, "sequence"), ctypes.byref(tokens), None))
        return list((ctypes.c_int32 * n).from_address(tokens.value or 0)) if n else []

    def logprobs(self, sequence: int = 0) -> List[float]:
        """Their log-probabilities under the model, before temperature, penalty and filters."""
        values = ctypes.c_void_p()
        n = int(get("emo_session_generated", self, integer("int32_t", sequence, "sequence"), None, ctypes.byref(values)))
        return list((ctypes.c_float * n).from_address(values.value or 0)) if n else []

    def stop_reason(self, sequence: int = 0) -> StopReason:
        """Why a sequence stopped; StopReason.NONE when it has not."""
        return StopReason(get("emo_session_stop_reason", self, integer("int32_t", sequence, "sequence")))

    def logits(self, sequence: int = 0) -> Array:
        """Logits from which the last token was drawn, or would be: f32 [vocab]."""
        out = Array("f32", (self._model.info.vocab,))
        call("emo_session_logits", self, integer("int32_t", sequence, "sequence"), out.address, out.size)
        return out

    def pool(self, sequence: int = 0) -> Mask:
        """The experts a sequence may use: the session's mask narrowed by its frozen pool."""
        return make(Mask, "emo_session_pool", self, integer("int32_t", sequence, "sequence"), keep=self._model._keep)

    def reset(self) -> None:
        """Forgets everything but the options."""
        call("emo_session_reset", self)
        self._ahead = ""

    def __repr__(self) -> str:
        return "<emo.Session closed>" if self.closed else "<emo.Session of %r>" % self._model
