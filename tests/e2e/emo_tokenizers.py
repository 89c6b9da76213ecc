# SPDX-License-Identifier: Apache-2.0
"""libemo's tokenizer through ctypes, and a real vocabulary in tokenizer.json's form: what the comparisons share."""
import base64
import ctypes as c
import json
import os
import sys

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
# Where the ranks of cl100k lie in the package litellm.
CL100K_FILE = "litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
NEXT = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(c.c_void_p), c.POINTER(c.c_size_t))


class Error(c.Structure):
    _fields_ = [("code", c.c_int32), ("domain", c.c_int32), ("number", c.c_int64), ("message", c.c_char * 496)]


class Reader(c.Structure):
    _fields_ = [("ctx", c.c_void_p), ("next", NEXT)]


class TrainOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("vocab_size", c.c_int32), ("min_frequency", c.c_int64),
                ("max_bytes", c.c_uint64), ("eos", c.c_char_p), ("pattern", c.c_char_p),
                ("progress_ctx", c.c_void_p), ("progress_report", c.c_void_p)]


class EncodeOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("parse_special", c.c_int32), ("add_special", c.c_int32)]


class Emo:
    """The library; a tokenizer is a handle from load() or train()."""

    def __init__(self, path):
        self.lib = c.CDLL(os.path.abspath(path))
        self.err = Error()
        self.rt = c.c_void_p()
        self.room = 0
        self.count = c.c_size_t()
        self.call("emo_runtime_create", None, c.byref(self.rt))

    def call(self, name, *args):
        if getattr(self.lib, name)(*args, c.byref(self.err)) != 0:
            raise RuntimeError(f"{name}: {self.err.message.decode()}")

    def load(self, path):
        tok = c.c_void_p()
        self.call("emo_tokenizer_load", self.rt, path.encode(), c.byref(tok))
        return tok

    def from_json(self, text):
        tok = c.c_void_p()
        data = text.encode()
        self.call("emo_tokenizer_from_json", self.rt, data, c.c_size_t(len(data)), c.byref(tok))
        return tok

    def to_json(self, tok):
        size = c.c_size_t()
        self.call("emo_tokenizer_to_json", tok, None, c.c_size_t(0), c.byref(size))
        out = c.create_string_buffer(size.value)
        self.call("emo_tokenizer_to_json", tok, out, size, c.byref(size))
        return out.raw.decode()

    def release(self, tok):
        self.lib.emo_tokenizer_release(tok)

    def train(self, texts, vocab):
        place = iter(texts)

        def advance(_, text, length):
            self.kept = next(place, None)
            if self.kept is None:
                return 0
            text[0] = c.cast(c.c_char_p(self.kept), c.c_void_p).value
            length[0] = len(self.kept)
            return 1

        options = TrainOptions(c.sizeof(TrainOptions), vocab, 2, 0, None, None, None, None)
        reader = Reader(None, NEXT(advance))
        tok = c.c_void_p()
        self.call("emo_tokenizer_train", self.rt, c.byref(options), c.byref(reader), c.byref(tok))
        return tok

    def count_ids(self, tok, text, parse=1, add=0):
        """Encodes bytes into self.ids; returns how many ids there are."""
        n = 12 * len(text) + 32 if len(text) < 4096 else 4 * len(text)
        if n > self.room:
            self.room = n
            self.ids = (c.c_int32 * n)()
        options = EncodeOptions(12, parse, add)
        self.call("emo_tokenizer_encode_with", tok, c.byref(options), text, c.c_size_t(len(text)), self.ids,
                  c.c_size_t(self.room), c.byref(self.count))
        return self.count.value

    def encode(self, tok, text, parse=1, add=0):
        """The ids of bytes as a list."""
        return self.ids[:n] if (n := self.count_ids(tok, text, parse, add)) else []

    def decode(self, tok, ids):
        array, size = (c.c_int32 * len(ids))(*ids), c.c_size_t()
        self.call("emo_tokenizer_decode", tok, array, c.c_size_t(len(ids)), None, c.c_size_t(0), c.byref(size))
        out = c.create_string_buffer(size.value + 1)
        self.call("emo_tokenizer_decode", tok, array, c.c_size_t(len(ids)), out, c.c_size_t(size.value + 1),
                  c.byref(size))
        return out.raw[:size.value]

    def stream(self, tok, ids):
        """The pieces of text that the streaming decoder gives; each must be UTF-8 by itself."""
        decoder, text, length = c.c_void_p(), c.c_void_p(), c.c_size_t()
        self.call("emo_decoder_create", tok, None, c.byref(decoder))
        pieces = []
        for i in ids:
            self.call("emo_decoder_push", decoder, c.c_int32(i), c.byref(text), c.byref(length))
            pieces.append(c.string_at(text, length.value).decode())
        self.call("emo_decoder_flush", decoder, c.byref(text), c.byref(length))
        pieces.append(c.string_at(text, length.value).decode())
        self.lib.emo_decoder_release(decoder)
        return pieces


def byte_alphabet():
    """The character that stands for each byte in tokenizer.json."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in plain}
    for b in range(256):
        table.setdefault(b, chr(256 + len([x for x in range(b) if x not in plain])))
    return table


def merges_of(ranks):
    """The merge behind each token of a rank file: what merging its bytes with the tokens before it ends in."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[i:i + 1] for i in range(len(token))]
        pair_ranks = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:])]
        while len(parts) > 2:
            best = min(pair_ranks)
            if best >= rank:
                sys.exit(f"token {rank} is no merge of earlier ones")
            i = pair_ranks.index(best)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
            del pair_ranks[i]
            if i > 0:
                pair_ranks[i - 1] = ranks.get(parts[i - 1] + parts[i], rank)
            if i + 1 < len(parts):
                pair_ranks[i] = ranks.get(parts[i] + parts[i + 1], rank)
        merges.append(parts)
    return merges


def find_ranks():
    """The rank file of cl100k, or None where the package that holds it is not installed."""
    for folder in sys.path:
        path = os.path.join(folder or ".", "litellm", CL100K_FILE)
        if os.path.exists(path):
            return path
    return None


def write_cl100k(ranks_path, out, inverted=True):
    """A tokenizer.json of the dolma2 family from cl100k's ranks: 100256 tokens and the special ones behind them."""
    with open(ranks_path, "rb") as f:
        ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in f)}
    alphabet = byte_alphabet()

    def spell(token):
        return "".join(alphabet[b] for b in token)

    special = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
               **{f"<|extra_id_{i}|>": 100261 + i for i in range(3)}, "<|im_start|>": 100264, "<|im_end|>": 100265,
               **{f"<|extra_id_{i}|>": 100263 + i for i in range(3, 13)}, "<|endofprompt|>": 100276,
               "<|pad|>": 100277}
    split = {"type": "Split", "pattern": {"Regex": CL100K}, "behavior": "Removed" if inverted else "Isolated",
             "invert": inverted}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocab = {spell(t): r for t, r in ranks.items()}
    vocab.setdefault("<|unused|>", 100256)
    data = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for t, i in special.items()],
            "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "", "fuse_unk": False, "vocab": vocab,
                      "merges": [f"{spell(a)} {spell(b)}" for a, b in merges_of(ranks)]}}
    with open(out, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False)
