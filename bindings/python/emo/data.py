# SPDX-License-Identifier: Apache-2.0
"""Documents: read, tokenised once, labelled with domains; and multiple-choice items."""
from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from ._call import Handle, Hooks, Pin, call, create, get, make, path_bytes, text_bytes
from ._lib import STRUCTS
from ._opt import Options, documented, integer
from .array import Array, borrow
from .runtime import Runtime, runtime_or_default
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import DatasetOptions

    Paths = Union[str, os.PathLike[str], Sequence[Union[str, os.PathLike[str]]]]

__all__ = ["Dataset", "Document", "Texts", "TextDocument", "Choices", "ChoiceItem"]


class Document(NamedTuple):
    """A document of a dataset."""

    tokens: Array  #: i32 [count], shared with the dataset, without end-of-text token
    domain: str  #: its domain's name
    prompt_tokens: int  #: how many of the first tokens are a prompt, on which there is no loss
    bytes: int  #: UTF-8 bytes of the text; 0 when made from tokens alone
    prompt_bytes: int  #: how many of them are the prompt's


class TextDocument(NamedTuple):
    """A document as text."""

    text: str
    domain: str
    prompt_bytes: int  #: how many of the first UTF-8 bytes are a prompt


class ChoiceItem(NamedTuple):
    """A multiple-choice item."""

    id: str
    domain: str
    kind: str
    context: str
    choices: Tuple[str, ...]
    answer: int  #: index of the right one


def _path_array(paths: Any) -> Tuple[Any, int]:
    if isinstance(paths, (str, bytes, os.PathLike)):
        paths = [paths]
    raw = [path_bytes(path) for path in paths]
    return (ctypes.c_char_p * max(len(raw), 1))(*raw), len(raw)


@documented("emo_dataset_options")
class Dataset(Handle):
    """Documents as token ids, labelled with domains; immutable.

    Dataset(paths, tokenizer) reads .jsonl, .npy, .bin, .mix and text files, plain or gzip, and folders of them.
    len(dataset) is the number of documents, dataset[i] a Document. Others come from Dataset.from_texts() and
    Dataset.from_tokens()."""

    _release = "emo_dataset_release"

    def __init__(self, paths: "Paths", tokenizer: Optional[Tokenizer] = None, *, runtime: Optional[Runtime] = None,
                 **options: "Unpack[DatasetOptions]") -> None:
        rt = runtime_or_default(runtime)
        hooks = Hooks()
        filled = Options("emo_dataset_options", "emo.Dataset", options, hooks=hooks)
        array, count = _path_array(paths)
        self._adopt(create(Dataset, "emo_dataset_open", rt, array, count, tokenizer, filled.struct, hooks=hooks), rt)

    @classmethod
    def from_texts(cls, texts: Iterable[Union[str, Tuple[str, str]]], tokenizer: Tokenizer, *,
                   runtime: Optional[Runtime] = None, **options: "Unpack[DatasetOptions]") -> "Dataset":
        """Each text is a document; (text, domain) pairs label them. Any iterable will do.

        Options are skip_broken, max_documents, domain, eos and progress of Dataset().
        """
        rt = runtime_or_default(runtime)
        if isinstance(texts, str):
            texts = [texts]
        raw: List[bytes] = []
        domains: List[bytes] = []
        for number, item in enumerate(texts):
            text, domain = item if isinstance(item, tuple) else (item, "")
            raw.append(text_bytes(text, "text %d" % number))
            domains.append(text_bytes(domain, "the domain of text %d" % number))
        n = len(raw)
        arrays = ((ctypes.c_char_p * max(n, 1))(*raw), (ctypes.c_char_p * max(n, 1))(*domains))
        hooks = Hooks()
        filled = Options("emo_dataset_options", "emo.Dataset.from_texts", options, hooks=hooks)
        return make(cls, "emo_dataset_from_text_with", rt, tokenizer, *arrays, n, filled.struct, hooks=hooks, keep=(rt,))

    @classmethod
    def from_tokens(cls, documents: Iterable[Any], *, domains: Optional[Sequence[str]] = None, eos: int = -1,
                    runtime: Optional[Runtime] = None) -> "Dataset":
        """Each item is a document: a list or array of token ids.

        Args:
            domains: a name for each document; None: all have the empty name
            eos: end-of-text id used when packing; -1: none
        """
        rt = runtime_or_default(runtime)
        parts = [borrow(document, "i32", "document %d" % i) for i, document in enumerate(documents)]
        n = len(parts)
        lengths = (ctypes.c_size_t * max(n, 1))(*[part.size for part in parts])
        total = sum(part.size for part in parts)
        tokens = (ctypes.c_int32 * max(total, 1))()
        at = 0
        for part in parts:
            ctypes.memmove(ctypes.addressof(tokens) + at, part.address, 4 * part.size)
            at += 4 * part.size
        names = None
        if domains is not None:
            if len(domains) != n:
                raise ValueError("domains has %d names for %d documents" % (len(domains), n))
            names = (ctypes.c_char_p * max(n, 1))(*[text_bytes(d, "a domain") for d in domains])
        return make(cls, "emo_dataset_from_tokens", rt, tokens, lengths, names, n, integer("int32_t", eos, "eos"),
                    keep=(rt,))

    def __len__(self) -> int:
        return int(get("emo_dataset_count", self))

    def __getitem__(self, index: int) -> Document:
        n = len(self)
        i = index + n if index < 0 else index
        if not 0 <= i < n:
            raise IndexError("document %d of %d" % (index, n))
        view: Any = STRUCTS["emo_document"]()
        call("emo_dataset_document", self, i, view)
        tokens = Array._over("i32", (view.count,), view.tokens, Pin(self))
        return Document(tokens, self._domain(view.domain), view.prompt_tokens, view.bytes, view.prompt_bytes)

    def __iter__(self) -> Iterator[Document]:
        return (self[i] for i in range(len(self)))

    def _domain(self, index: int) -> str:
        name = get("emo_dataset_domain_name", self, index)
        return "" if name is None else str(name.decode("utf-8"))

    @property
    def tokens(self) -> int:
        """Tokens of all documents, without end-of-text tokens."""
        return int(get("emo_dataset_tokens", self))

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return int(get("emo_dataset_bytes", self))

    @property
    def skipped(self) -> int:
        """Documents that were left out as broken."""
        return int(get("emo_dataset_skipped", self))

    @property
    def eos(self) -> Optional[int]:
        """The end-of-text id, or None."""
        token = get("emo_dataset_eos", self)
        return None if token < 0 else int(token)

    @property
    def vocab_size(self) -> int:
        """The rows of an embedding that the ids need."""
        return int(get("emo_dataset_vocab_size", self))

    @property
    def domains(self) -> List[str]:
        """The names of the domains."""
        return [self._domain(i) for i in range(get("emo_dataset_domains", self))]

    def filter(self, domain: Optional[str] = None, examples: int = 0, seed: int = 0) -> "Dataset":
        """A part, which shares the tokens: one domain, and `examples` documents drawn by `seed` (0: all, in order)."""
        return make(Dataset, "emo_dataset_filter", self, None if domain is None else text_bytes(domain, "domain"),
                    integer("int64_t", examples, "examples"), integer("uint64_t", seed, "seed"), keep=(self,))

    def __repr__(self) -> str:
        if self.closed:
            return "<emo.Dataset closed>"
        return "<emo.Dataset of %d documents, %d tokens>" % (len(self), self.tokens)


class Texts(Handle):
    """Documents as text, read as they are asked for: the files of Dataset, without a tokenizer.

    Iterating gives TextDocuments, once; Tokenizer.train() takes it as it is. Options: skip_broken, max_documents, domain.
    """

    _release = "emo_texts_release"

    def __init__(self, paths: "Paths", *, runtime: Optional[Runtime] = None, **options: "Unpack[DatasetOptions]") -> None:
        rt = runtime_or_default(runtime)
        filled = Options("emo_dataset_options", "emo.Texts", options, hooks=Hooks())
        array, count = _path_array(paths)
        self._adopt(create(Texts, "emo_texts_open", rt, array, count, filled.struct), rt)

    def __iter__(self) -> "Texts":
        return self

    def __next__(self) -> TextDocument:
        view: Any = STRUCTS["emo_text_document"]()
        call("emo_texts_next", self, view)
        # The text does not end with a NUL: its address is wanted, not what ctypes makes of a char pointer.
        start = ctypes.c_void_p.from_buffer(view, STRUCTS["emo_text_document"].text.offset).value
        if start is None:
            raise StopIteration
        text = ctypes.string_at(start, view.length).decode("utf-8", "replace")
        return TextDocument(text, (view.domain or b"").decode("utf-8"), view.prompt_bytes)

    @property
    def count(self) -> int:
        """Documents given so far."""
        return int(get("emo_texts_count", self))

    @property
    def bytes(self) -> int:
        """Bytes of their texts."""
        return int(get("emo_texts_bytes", self))

    @property
    def skipped(self) -> int:
        """Documents left out as broken so far."""
        return int(get("emo_texts_skipped", self))


class Choices(Handle):
    """Multiple-choice items of a .jsonl or .jsonl.gz file; a sequence of ChoiceItems."""

    _release = "emo_choices_release"

    def __init__(self, path: "Union[str, os.PathLike[str]]", *, runtime: Optional[Runtime] = None) -> None:
        rt = runtime_or_default(runtime)
        self._adopt(create(Choices, "emo_choices_open", rt, path_bytes(path)), rt)

    def __len__(self) -> int:
        return int(get("emo_choices_count", self))

    def __getitem__(self, index: int) -> ChoiceItem:
        n = len(self)
        i = index + n if index < 0 else index
        if not 0 <= i < n:
            raise IndexError("item %d of %d" % (index, n))
        view: Any = STRUCTS["emo_choice_item"]()
        call("emo_choices_item", self, i, view)
        texts = (ctypes.c_char_p * view.count).from_address(view.choices)
        return ChoiceItem(view.id.decode("utf-8"), view.domain.decode("utf-8"), view.kind.decode("utf-8"),
                          view.context.decode("utf-8"), tuple((t or b"").decode("utf-8") for t in texts), view.answer)

    def __iter__(self) -> Iterator[ChoiceItem]:
        return (self[i] for i in range(len(self)))
