#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Encoding speed on one thread next to Hugging Face's `tokenizers`, and how long a vocabulary takes to load.

usage: tokenizer_speed.py LIBEMO.so TOKENIZER.json|cl100k CORPUS.jsonl[.gz] [MEGABYTES [SECONDS]]

Texts of MEGABYTES (4) in all are encoded in turn by both until SECONDS (15) are over; the best round of each counts.
`cl100k` makes the real vocabulary from the ranks in the package litellm. The ids must be the same.
"""
import gzip
import json
import os
import sys
import tempfile
import time

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
try:
    import tokenizers
except ImportError:
    print("skipped: the Python package tokenizers is not installed")
    sys.exit(77)
from emo_tokenizers import Emo, find_ranks, write_cl100k


def best(times):
    return min(times) if times else float("nan")


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    emo, path = Emo(sys.argv[1]), sys.argv[2]
    room = float(sys.argv[4] if len(sys.argv) > 4 else 4) * 1e6
    seconds = float(sys.argv[5] if len(sys.argv) > 5 else 15)
    texts, size = [], 0
    with (gzip.open if sys.argv[3].endswith(".gz") else open)(sys.argv[3], "rb") as f:
        for line in f:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1].encode())
            if size >= room:
                break
    data = [t.encode() for t in texts]
    with tempfile.TemporaryDirectory() as folder:
        if path == "cl100k":
            path = os.path.join(folder, "tokenizer.json")
            write_cl100k(find_ranks() or sys.exit("the ranks are not here: pip install litellm"), path)
        begin = time.perf_counter()
        tok = emo.load(path)
        load = time.perf_counter() - begin
        begin = time.perf_counter()
        other = tokenizers.Tokenizer.from_file(path)
        load_other = time.perf_counter() - begin
    for text, raw in zip(texts, data):
        if emo.encode(tok, raw) != other.encode(text, add_special_tokens=False).ids:
            sys.exit(f"other ids for {ascii(text[:200])}")
    ours, theirs, fast = [], [], []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or not fast:
        begin = time.perf_counter()
        for raw in data:
            emo.count_ids(tok, raw)
        ours.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for text in texts:
            other.encode(text, add_special_tokens=False)
        theirs.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        other.encode_batch_fast(texts, add_special_tokens=False)
        fast.append(time.perf_counter() - begin)
    mine, mb = best(ours), size / 1e6
    print(f"{len(texts)} texts, {mb:.1f} MB, same ids; {len(ours)} rounds, best of each, one thread")
    print(f"load:   libemo {load:.3f} s, tokenizers {load_other:.3f} s")
    print(f"encode: libemo {mb / mine:.1f} MB/s, tokenizers {mb / best(theirs):.1f} MB/s (encode), "
          f"{mb / best(fast):.1f} MB/s (encode_batch_fast)")
    print(f"ratio:  {min(best(theirs), best(fast)) / mine:.1f} times as fast as the faster of the two")


if __name__ == "__main__":
    main()
