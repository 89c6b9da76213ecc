# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back: byte-level BPE in the tokenizer.json form of Hugging Face, and its training."""
from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Iterable, List, Optional, Union

from ._call import Handle, Hooks, call, create, get, make, path_bytes
from ._call import text as _text
from ._lib import ctype, library
from ._opt import Options, documented, integer
from .array import Array, borrow
from .enums import Status
from .runtime import Runtime, runtime_or_default
from .source import Source

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import DecoderOptions, TokenizerEncodeOptions, TokenizerTrainOptions

__all__ = ["Tokenizer", "Decoder"]


_LONG = 65536  # bytes from which on the library reports how far encoding is


class Tokenizer(Handle):
    """A vocabulary with its merges.

    Tokenizer(path) reads a tokenizer.json or a folder that holds one, Tokenizer(source) an emo.Source. Others come from
    Tokenizer.bytes(), Tokenizer.from_json() and Tokenizer.train().
    """

    _release = "emo_tokenizer_release"

    def __init__(self, what: Any, *, runtime: Optional[Runtime] = None) -> None:
        rt = runtime_or_default(runtime)
        if isinstance(what, Source):
            try:
                self._adopt(create(Tokenizer, "emo_tokenizer_load_source", rt, what), rt)
            except BaseException:
                what._raise_failed()
                raise
        else:
            self._adopt(create(Tokenizer, "emo_tokenizer_load", rt, path_bytes(what)), rt)

    @classmethod
    def load(cls, path: "Union[str, os.PathLike[str]]", *, runtime: Optional[Runtime] = None) -> "Tokenizer":
        """Reads a tokenizer.json, or that of a folder."""
        return cls(path, runtime=runtime)

    @classmethod
    def bytes(cls, *, runtime: Optional[Runtime] = None) -> "Tokenizer":
        """The plain byte tokenizer: ids 0 to 255 are bytes, 256 is <|endoftext|>."""
        rt = runtime_or_default(runtime)
        return make(cls, "emo_tokenizer_create_bytes", rt, keep=(rt,))

    @classmethod
    def from_json(cls, text: str, *, runtime: Optional[Runtime] = None) -> "Tokenizer":
        """Reads the text of a tokenizer.json."""
        rt = runtime_or_default(runtime)
        raw = text.encode("utf-8")
        return make(cls, "emo_tokenizer_from_json", rt, raw, len(raw), keep=(rt,))

    @classmethod
    @documented("emo_tokenizer_train_options")
    def train(cls, texts: Union[Iterable[str], Any], *, runtime: Optional[Runtime] = None,
              **options: "Unpack[TokenizerTrainOptions]") -> "Tokenizer":
        """Learns a byte-level BPE tokenizer from texts: strings from any iterable, which is read as it goes, or an
        emo.Texts. An exception of the iterable stops the training and is raised here."""
        from .data import Texts

        rt = runtime_or_default(runtime)
        hooks = Hooks()
        filled = Options("emo_tokenizer_train_options", "emo.Tokenizer.train", options, hooks=hooks)
        reader: Any = library().new("emo_text_reader")
        if isinstance(texts, Texts):
            call("emo_texts_reader", texts, ctypes.byref(reader))
            return make(cls, "emo_tokenizer_train", rt, filled.struct, reader, keep=(rt, texts), hooks=hooks)
        if isinstance(texts, (str, os.PathLike)):
            raise TypeError("texts must be an iterable of strings; for files give emo.Texts(paths)")
        iterator = iter(texts)
        held: List[object] = []

        def following(_: object, out: int, length: int) -> int:
            try:
                item = next(iterator, None)
                if item is None:
                    return 0
                if isinstance(item, tuple):
                    item = item[0]
                raw = item.encode("utf-8") if isinstance(item, str) else memoryview(item).tobytes()
                held[:] = [raw]
                ctypes.c_char_p.from_address(out).value = raw
                ctypes.c_size_t.from_address(length).value = len(raw)
                return 1
            except BaseException as error:  # it goes on in the caller
                hooks.fail(error)
                return int(Status.CANCELLED)

        reader.next = ctype("int32_t (*)(void *, const char **, size_t *)")(following)
        return make(cls, "emo_tokenizer_train", rt, filled.struct, reader, keep=(rt,), hooks=hooks)

    def save(self, path: "Union[str, os.PathLike[str]]") -> None:
        """Writes a tokenizer.json, whole or not at all."""
        call("emo_tokenizer_save", self, path_bytes(path))

    def to_json(self) -> str:
        """The text that save() writes."""
        return _text("emo_tokenizer_to_json", self, terminated=False)

    @property
    def vocab_size(self) -> int:
        """The highest id + 1."""
        return int(get("emo_tokenizer_vocab_size", self))

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def eos(self) -> Optional[int]:
        """The end-of-text token, or None."""
        token = get("emo_tokenizer_eos", self)
        return None if token < 0 else int(token)

    @eos.setter
    def eos(self, token: Optional[int]) -> None:
        call("emo_tokenizer_set_eos", self, -1 if token is None else integer("int32_t", token, "eos"))

    @property
    def hash(self) -> int:
        """A 64-bit hash of everything that decides ids."""
        return int(get("emo_tokenizer_hash", self))

    @documented("emo_tokenizer_encode_options")
    def encode(self, text: Union[str, "Any"], **options: "Unpack[TokenizerEncodeOptions]") -> List[int]:
        """The ids of a text (str, or bytes of UTF-8). Special tokens that it spells out are plain text."""
        return list(self._encode(text, options))

    def encode_array(self, text: Union[str, "Any"], **options: "Unpack[TokenizerEncodeOptions]") -> Array:
        """The same as an Array, i32 [tokens]."""
        ids = self._encode(text, options)
        return Array._over("i32", (len(ids),), ctypes.addressof(ids), ids, False)

    def _encode(self, text: Any, options: Any) -> Any:
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else memoryview(text).tobytes()
        hooks = Hooks()
        filled = None
        if options or len(raw) > _LONG:
            filled = Options("emo_tokenizer_encode_options", "emo.Tokenizer.encode", options, hooks=hooks)
        count = ctypes.c_size_t()
        capacity = len(raw) + 16
        while True:
            ids = (ctypes.c_int32 * capacity)()
            try:
                if filled is None:
                    call("emo_tokenizer_encode", self, raw, len(raw), ids, capacity, ctypes.byref(count))
                else:
                    call("emo_tokenizer_encode_with", self, filled.struct, raw, len(raw), ids, capacity,
                         ctypes.byref(count), hooks=hooks)
                break
            except Exception:
                if count.value <= capacity:
                    raise
                capacity = count.value
        exact = (ctypes.c_int32 * count.value)()
        ctypes.memmove(exact, ids, 4 * count.value)
        return exact

    def decode_bytes(self, ids: Any) -> "Any":
        """The raw bytes of ids (a list or array); special tokens are spelled out."""
        memory = borrow(ids, "i32", "ids")
        size = ctypes.c_size_t()
        call("emo_tokenizer_decode", self, memory.address, memory.size, None, 0, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value + 1)
        call("emo_tokenizer_decode", self, memory.address, memory.size, buffer, size.value + 1, ctypes.byref(size))
        return buffer.raw[:size.value]

    def decode(self, ids: Any, errors: str = "replace") -> str:
        """The text of ids (a list or array)."""
        return str(self.decode_bytes(ids).decode("utf-8", errors))

    def token(self, id: int) -> "Any":
        """The raw bytes of a token; not always UTF-8."""
        address, length = ctypes.c_void_p(), ctypes.c_size_t()
        call("emo_tokenizer_id_to_token", self, integer("int32_t", id, "id"), ctypes.byref(address),
             ctypes.byref(length))
        return ctypes.string_at(address.value or 0, length.value)

    def id(self, token: Union[str, "Any"]) -> Optional[int]:
        """The id of a token given as text or raw bytes; None when there is none."""
        raw = token.encode("utf-8") if isinstance(token, str) else memoryview(token).tobytes()
        found = get("emo_tokenizer_token_to_id", self, raw, len(raw))
        return None if found < 0 else int(found)

    def is_special(self, id: int) -> bool:
        """Whether the id is an added token marked special."""
        return bool(get("emo_tokenizer_is_special", self, integer("int32_t", id, "id")))

    def decoder(self, **options: "Unpack[DecoderOptions]") -> "Decoder":
        """A streaming decoder."""
        return Decoder(self, **options)

    def __repr__(self) -> str:
        return "<emo.Tokenizer closed>" if self.closed else "<emo.Tokenizer of %d tokens>" % self.vocab_size


@documented("emo_decoder_options")
class Decoder(Handle):
    """Turns ids into text one at a time, always in whole characters."""

    _release = "emo_decoder_release"

    def __init__(self, tokenizer: Tokenizer, **options: "Unpack[DecoderOptions]") -> None:
        filled = Options("emo_decoder_options", "emo.Decoder", options)
        self._adopt(create(Decoder, "emo_decoder_create", tokenizer, filled.struct), tokenizer)

    def _view(self, name: str, *arguments: Any) -> str:
        address, length = ctypes.c_void_p(), ctypes.c_size_t()
        call(name, self, *arguments, ctypes.byref(address), ctypes.byref(length))
        return ctypes.string_at(address.value or 0, length.value).decode("utf-8") if length.value else ""

    def push(self, id: int) -> str:
        """Takes one id and gives the text that is certain by now; often empty."""
        return self._view("emo_decoder_push", integer("int32_t", id, "id"))

    def flush(self) -> str:
        """Gives what still waits and makes the decoder as new."""
        return self._view("emo_decoder_flush")
