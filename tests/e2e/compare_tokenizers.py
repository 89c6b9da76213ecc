#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares libemo's tokenizer with Hugging Face's `tokenizers`: training, ids, text, both file directions.

usage: compare_tokenizers.py LIBEMO.so CORPUS.jsonl[.gz] [TOKENIZER.json ...]

Every line of the corpus is an object with a "text". Exits with 77 (skipped) where the package is missing.
"""
import ctypes as c
import gzip
import json
import os
import sys
import tempfile

try:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError:
    sys.exit(77)

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
VOCAB = 2048
NEXT = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(c.c_void_p), c.POINTER(c.c_size_t))


class Error(c.Structure):
    _fields_ = [("code", c.c_int32), ("domain", c.c_int32), ("number", c.c_int64), ("message", c.c_char * 496)]


class Reader(c.Structure):
    _fields_ = [("ctx", c.c_void_p), ("next", NEXT)]


class TrainOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("vocab_size", c.c_int32), ("min_frequency", c.c_int64),
                ("max_bytes", c.c_uint64), ("eos", c.c_char_p), ("pattern", c.c_char_p),
                ("progress_ctx", c.c_void_p), ("progress_report", c.c_void_p)]


class Emo:
    def __init__(self, path):
        self.lib = c.CDLL(path)
        self.err = Error()
        self.rt = c.c_void_p()
        self.call("emo_runtime_create", None, c.byref(self.rt))

    def call(self, name, *args):
        if getattr(self.lib, name)(*args, c.byref(self.err)) != 0:
            sys.exit(f"{name}: {self.err.message.decode()}")

    def load(self, path):
        tok = c.c_void_p()
        self.call("emo_tokenizer_load", self.rt, path.encode(), c.byref(tok))
        return tok

    def train(self, texts):
        place = iter(texts)

        def advance(_, text, length):
            self.kept = next(place, None)
            if self.kept is None:
                return 0
            text[0] = c.cast(c.c_char_p(self.kept), c.c_void_p).value
            length[0] = len(self.kept)
            return 1

        options = TrainOptions(c.sizeof(TrainOptions), VOCAB, 2, 0, None, None, None, None)
        reader = Reader(None, NEXT(advance))
        tok = c.c_void_p()
        self.call("emo_tokenizer_train", self.rt, c.byref(options), c.byref(reader), c.byref(tok))
        return tok

    def encode(self, tok, text):
        room = 4 * len(text) + 4
        ids, count = (c.c_int32 * room)(), c.c_size_t()
        self.call("emo_tokenizer_encode", tok, text, c.c_size_t(len(text)), ids, c.c_size_t(room), c.byref(count))
        return ids[:count.value]


def compare(name, emo, tok, other, texts):
    for i, text in enumerate(texts):
        want = other.encode(text.decode(), add_special_tokens=False).ids
        got = emo.encode(tok, text)
        if got != want:
            sys.exit(f"{name}: text {i}: other ids from place "
                     f"{next((k for k, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))}")
    print(f"{name}: {len(texts)} texts, same ids")


def merges(path):
    with open(path, encoding="utf-8") as f:
        model = json.load(f)["model"]
    return model["vocab"], [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    emo = Emo(os.path.abspath(sys.argv[1]))
    with (gzip.open if sys.argv[2].endswith(".gz") else open)(sys.argv[2], "rb") as f:
        texts = [json.loads(line)["text"].encode() for line in f]
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.path.join(folder, "ours.json"), os.path.join(folder, "theirs.json")
        tok = emo.train(texts)
        emo.call("emo_tokenizer_save", tok, ours.encode())
        compare("our file in theirs", emo, tok, Tokenizer.from_file(ours), texts)
        other = Tokenizer(models.BPE())
        other.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(CL100K), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        other.decoder = decoders.ByteLevel()
        other.train_from_iterator((t.decode() for t in texts), trainers.BpeTrainer(
            vocab_size=VOCAB - 1, min_frequency=2, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        other.add_special_tokens(["<|endoftext|>"])
        other.save(theirs)
        compare("their file in ours", emo, emo.load(theirs), other, texts)
        if merges(ours) != merges(theirs):
            sys.exit("training: other merges than theirs")
        print("training: same vocabulary, same merges")
    for path in sys.argv[3:]:
        compare(path, emo, emo.load(path), Tokenizer.from_file(path), texts)


if __name__ == "__main__":
    main()
