#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares libemo's tokenizer with Hugging Face's `tokenizers`: ids, decoded text, training, files both ways.

usage: compare_tokenizers.py LIBEMO.so [--corpus FILE]... [--ranks FILE] [--full] [--only NAME]... [TOKENIZER.json ...]

--corpus FILE  texts, a JSON object with "text" (or "context" and "choices") a line, plain or gzip; may be given again
--ranks FILE   the rank file of cl100k (found by itself where the package litellm is installed)
--full         every text of the corpus and every code point in several surroundings under every pipeline; without it
               some texts, and every code point under three pipelines only
--only NAME    only the pipelines and parts whose name holds NAME
Small vocabularies are trained here and now. Exits with 77 where the package is missing.
"""
import argparse
import gzip
import json
import os
import random
import sys
import tempfile
import time
import unicodedata

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
try:
    import tokenizers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import trainers
except ImportError:
    print("skipped: the Python package tokenizers is not installed")
    sys.exit(77)

import emo_tokenizers
from emo_tokenizers import CL100K, Emo

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
NEWER_GPT4 = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|"
              r"\s*[\r\n]|\s+(?!\S)|\s")
PUNCT = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
THREE = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
         PUNCT + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
BEHAVIORS = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]


def level(prefix=False, regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def sequence(*parts):
    return pre_tokenizers.Sequence(list(parts))


# name: pre-tokenizer, normalizer, settings. "engine" marks patterns that the regular expression engine runs: its
# Unicode version is the installed one's; all others are the library's own.
PIPELINES = {
    "gpt2": (level(regex=True), None, {}),
    "gpt2 prefix": (level(True, True), None, {}),
    "gpt2 whole": (level(True), None, {}),
    "olmo1": (level(regex=True), normalizers.NFC(), {"spaces": True}),
    "dolma2": (sequence(split(CL100K, "removed", True), level()), None, {}),
    "llama3": (sequence(split(CL100K), level()), None, {"ignore_merges": True, "bos": True}),
    "qwen2": (sequence(split(QWEN2), level()), normalizers.NFC(), {}),
    "digits": (sequence(pre_tokenizers.Digits(individual_digits=True), level(regex=True)), None, {}),
    "digit runs": (sequence(pre_tokenizers.Digits(), level(True)), normalizers.NFD(), {}),
    "nfkc": (level(regex=True), normalizers.NFKC(), {}),
    "nfkd nfc": (level(regex=True), normalizers.Sequence([normalizers.NFKD(), normalizers.NFC()]), {}),
    "o200k": (sequence(split(O200K, "removed", True), level()), None, {"engine": True}),
    "gpt4": (sequence(split(NEWER_GPT4), level()), None, {"engine": True}),
    "three splits": (sequence(*[split(p) for p in THREE], level()), None, {"engine": True}),
}
# Patterns whose syntax or whose matches are of interest, not their use.
PATTERNS = [CL100K, GPT2, r"\s+", r"x*", r"(?=b)", r"a|ab", r"^b", r"a$", r"\s++$", r"(?m)a.b", r"(?m:a.)b", r".+",
            r"\d{1,3}+", r"\d{,2}", r"(?:a|b1){2}+", r"\h+", r"\H+", r"\p{Letter}+", r"\p{Han}+", r"\p{^L}+", r"\P{L}+",
            r"\w+", r"\W", r"\bab\b", r"\B.", r"[\w']+", r"[^\s\d]+", r"[\S]+", r"\u3042+", r"(?i:AB|'ſ)", r"(?i)k",
            r"\Ab", r"b\z", r"b\Z", r"\R", r"(?<=a)b", r"(?<!a)b", r"(?>a+)b", r"[]a]+", r"a{2,}?", r"\x{3042}", r"\t"]


class Failed(Exception):
    pass


def show(text):
    return ascii(text if len(text) < 120 else text[:117] + "...")


class Pair:
    """One tokenizer in both libraries."""

    def __init__(self, emo, text, name):
        self.emo, self.name = emo, name
        self.tok = emo.from_json(text)
        self.other = Tokenizer.from_str(text)
        self.special = [(t.content, i) for i, t in self.other.get_added_tokens_decoder().items()]

    def same(self, text, parse=1, add=0):
        self.other.encode_special_tokens = not parse
        try:
            want = self.other.encode(text, add_special_tokens=bool(add)).ids
        except BaseException as panic:  # pylint: disable=broad-except
            if type(panic).__name__ != "PanicException":
                raise
            return True  # it cannot do what it was asked; there is nothing to compare with
        return self.emo.encode(self.tok, text.encode(), parse, add) == want

    def check(self, texts, parse=1, add=0, excused=lambda c: False):
        """Fails at a text with other ids, unless it has an excused character."""
        for text in texts:
            if not self.same(text, parse, add) and not any(excused(ord(x)) for x in set(text)):
                self.fail(text, parse, add)

    def fail(self, text, parse=1, add=0):
        """Names the shortest part of the text that differs."""
        step = len(text) // 2
        while step > 0:
            for i in range(0, len(text), step):
                part = text[:i] + text[i + step:]
                if not self.same(part, parse, add):
                    text = part
                    break
            else:
                step //= 2
            step = min(step, len(text) // 2)
        raise Failed(f"{self.name}: {show(text)}: {self.emo.encode(self.tok, text.encode(), parse, add)}, "
                     f"want {self.other.encode(text, add_special_tokens=bool(add)).ids}")

    def decodes(self, texts, whole):
        """Decoding gives the bytes back, and the same as the other library; the stream gives it in whole characters."""
        for text in texts:
            ids = self.emo.encode(self.tok, text.encode(), 1)
            data = self.emo.decode(self.tok, ids)
            want = self.other.decode(ids, skip_special_tokens=False)
            if data.decode(errors="replace") != want or (whole and data.decode() != text):
                raise Failed(f"{self.name}: decoding {show(text)} gives {show(data.decode(errors='replace'))}")
            if "".join(self.emo.stream(self.tok, ids)) != want:
                raise Failed(f"{self.name}: the stream of {show(text)} differs")

    def close(self):
        self.emo.release(self.tok)


def engine_differences(emo, base):
    """The code points that the regular expression engine does not know yet and the other library's does, and those that
    neither the other's nor the library's own table knows."""
    base = json.loads(base)
    base["pre_tokenizer"] = json.loads(tokenizer_of(sequence(split(r"\p{Cn}", "removed"), level())))["pre_tokenizer"]
    pair = Pair(emo, json.dumps(base), "unassigned")
    found, unknown, points = set(), set(), [chr(c) for c in code_points()]
    for i in range(0, len(points), 4096):
        text = "".join(points[i:i + 4096])
        ours = pair.emo.decode(pair.tok, pair.emo.encode(pair.tok, text.encode())).decode()
        theirs = pair.other.decode(pair.other.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
        found |= {ord(x) for x in set(theirs) - set(ours)}
        unknown |= {ord(x) for x in set(text) - set(theirs)}
    pair.close()
    return found, unknown


def code_points():
    return (c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)


def ranges(points):
    out, points = [], sorted(points)
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return ", ".join(f"{a:04X}" if a == b else f"{a:04X}-{b:04X}" for a, b in out)


def excuse(differ):
    text = ranges(differ)
    return f" but for {len(differ)}, younger: {text[:200]}{'...' if len(text) > 200 else ''}" if differ else ""


def tokenizer_of(pre):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre
    return tok.to_str()


def edge_texts(rng):
    texts = ["", " ", "  ", "\n", "a", "'", "''", "'s", "'S", "'ſ", " 's", "it's It'S IT'LL we'Re they'vE I'm o'd 'x",
             "\u00e9 e\u0301 \u1e69 s\u0323\u0307 s\u0307\u0323 \u0344 \u212b \ufb01 \ufdfa \u2126 \u1100\u1161\u11a8",
             "👨‍👩‍👧‍👦 👩🏽‍🚀 🏳️‍🌈 🇨🇭🇫🇷 ❤️ 1️⃣ \U0001f9d1\u200d\U0001f91d\u200d\U0001f9d1",
             "\u200d\u200c\u200b\ufeff\u2060 a\u200db \u00ad",
             "Ĩ\u0301\u0327" * 9 + "Z" + "\u0300\u0301\u0316\u0317" * 40,
             "नमस्ते दुनिया", "สวัสดีชาวโลก", "שָׁלוֹם עֲלֵיכֶם", "مرحبا بالعالم ٣٤٥", "こんにちは世界、カタカナ", "안녕하세요 세계",
             "\U00020000\U0002a6d6 \U0001d400\U0001d7d8 \U00010348 \U000e0041 \U0010ffff \ufffe \uffff",
             "½ ² Ⅷ ①⑳ ㊿ ٣ ४ 𝟘𝟙",
             "a\u00a0b\u3000c\u2003d\u2028e\u2029f\u0085g\u180eh\u1680i",
             "\0 \x01\x7f\x1b[0m", "Ⓐⓑ _under_score_ __init__",
             "http://a.b/c?d=e&f=%20#g", "\r\n\r\n \r \n\t\r", "a\r\nb\rc\n", "x = [1,22,333,4444,55555,666666]",
             "<|endoftext|>", "<|endoftext|", "<|endoftext|><|endoftext|> x<|endoftext|>y", "ẞß İi ıI ŉ ǰ"]
    for unit in [" ", "\n", "\t", "\r\n", " \n", "\u3000", "\u00a0", "7", "٣", "a", "A'", "!", "-", "é", "e\u0301", "中",
                 "😀", "👨\u200d", "\u0301", "\u200d", " a", "1 ", "'s", "\n ", "...\n", "ab"]:
        for n in [2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 48, 49, 64, 100, 257, 2000]:
            texts += [unit * n, "x" + unit * n + "y", unit * n + " 1"]
    alphabet = ("aZsStTrReEvVmMlLdD019"
                "'\u2019.!_-/\\\"<|> \t\n\r\v\f\0\x7f\x85\u00a0\u00aa\u00b2\u00bd\u00e9\u017f\u212a"
                "\u0300\u0301\u0327\u0345\u0416\u05d0\u0660\u0939\u0940\u1e9b\u2003\u2028\u200b\u200d\u180e\u2160\u24b6"
                "\u3000\u4e2d\u3042\u30ab\uac00\u1100\u1161\u11a8\ufeff\ufffd\ufb01\U00010348\U0001d400\U0001d7d8"
                "\U0001f600\U00020000\U000e0001\U0010ffff")
    for _ in range(1500):
        texts.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 40))))
    for _ in range(300):
        plane = rng.choice([0, 0, 0, 1, 1, 2, 3, 14, 15, 16])
        points = [plane << 16 | rng.randrange(0x10000) for _ in range(rng.randrange(1, 40))]
        texts.append("".join(chr(c) if not 0xD800 <= c <= 0xDFFF else " " for c in points))
    return texts


def random_bytes(rng):
    out = []
    for _ in range(600):
        data = bytearray(rng.randrange(256) for _ in range(rng.randrange(1, 60)))
        if rng.random() < 0.5:  # text with a few wounds
            data = bytearray("Zürich 中文 😀 it's 12345 the end of é".encode() * 2)
            for _ in range(rng.randrange(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        out.append(bytes(data))
    return out


def every_code_point(full, sparse):
    """Texts that together hold every code point; with `full` each in several surroundings, with `sparse` one in seven
    of those above U+3400."""
    forms = ["a{0}b {0}{0}1"]
    if full:
        forms = ["a{0}b {0}1{0}\n", "{0}{0}'{0}s", " {0} {0}\n", "3{0}4{0}", "e{0}\u0301!{0}"]
    chunk = []
    for c in code_points():
        # planes 4 to 13 are empty and the private ones uniform: their ends are enough
        if not full and 0x33480 <= c and c & 0xFFFF >= 0x400 and c & 0xFFFF < 0xFFF0:
            continue
        if sparse and c > 0x3400 and c % 7 > 0:
            continue
        chunk.append(chr(c))
        if len(chunk) == 512:
            for form in forms:
                yield chunk, form
            chunk = []
    for form in forms:
        yield chunk, form


def check_code_points(pair, full, sparse, excused):
    """Code points as every_code_point() has them. Those that differ must be excused and are returned."""
    differ = set()
    for chunk, form in every_code_point(full, sparse):
        if pair.same("".join(form.format(x) for x in chunk)):
            continue
        alone = {ord(x) for x in chunk if not pair.same(form.format(x))}
        if not alone:  # only side by side
            pair.fail("".join(form.format(x) for x in chunk))
        differ |= alone
    wrong = [c for c in differ if not excused(c)]
    if wrong:
        raise Failed(f"{pair.name}: other ids for {ranges(wrong)}")
    return differ


def text_of(item):
    """A document's text, or that of a multiple-choice item."""
    return item["text"] if "text" in item else " ".join([item["context"], *item["choices"]])


class Comparison:
    def __init__(self, args):
        self.emo, self.full, self.only = Emo(args.library), args.full, args.only
        self.rng = random.Random(1)
        self.texts = []
        for path in args.corpus:
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
                self.texts += [text_of(json.loads(line)) for line in f]
        if not self.texts:
            self.texts = [t for t in edge_texts(random.Random(2)) if t] + [
                "The quick brown fox jumps over the lazy dog, and it's 12345 of them. " * 3] * 50
        self.part = self.texts if self.full else self.rng.sample(self.texts, min(len(self.texts), 150))
        self.sample = self.rng.sample(self.texts, min(len(self.texts), 400))
        self.edges = edge_texts(self.rng)
        self.wounded = random_bytes(self.rng)
        self.failed = 0
        self.lines = 0
        self.trained = {}
        self.engine = None
        self.told = False

    def wanted(self, name):
        return not self.only or any(x in name for x in self.only)

    def part_of(self, name, work):
        if not self.wanted(name):
            return
        begin = time.process_time()
        self.lines += 1
        try:
            said = work()
        except (Failed, RuntimeError) as failure:
            self.failed += 1
            said = f"FAILED: {failure}"
        print(f"{name}: {said}  [{time.process_time() - begin:.1f} s]", flush=True)

    def train(self, name, alphabet=True):
        """A vocabulary learned under the pipeline, as tokenizer.json."""
        if (name, alphabet) in self.trained:
            return self.trained[name, alphabet]
        pre, normal, settings = PIPELINES[name]
        tok = Tokenizer(models.BPE(ignore_merges=settings.get("ignore_merges", False)))
        tok.pre_tokenizer = pre
        tok.decoder = decoders.ByteLevel()
        if normal is not None:
            tok.normalizer = normal
        tok.train_from_iterator(self.sample, trainers.BpeTrainer(
            vocab_size=3000, min_frequency=2, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
            special_tokens=["<|endoftext|>"] if name == "gpt2" else []))
        if settings.get("spaces"):
            tok.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
        tok.add_special_tokens(["<|endoftext|>", "<|begin|>"])
        if settings.get("bos"):
            begin = tok.token_to_id("<|begin|>")
            tok.post_processor = processors.Sequence([
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B",
                                              special_tokens=[("<|begin|>", begin)])])
        self.trained[name, alphabet] = tok.to_str()
        return self.trained[name, alphabet]

    def excused(self, name):
        """Which code points may differ under a pipeline."""
        _, normal, settings = PIPELINES.get(name, (None, None, {}))
        if self.engine is None:
            self.engine, self.unknown_points = engine_differences(self.emo, self.train("gpt2"))
        # the other library tells digits by a younger Unicode than it matches patterns by
        young = self.unknown_points if "digit" in name else set()
        if settings.get("engine"):
            if not self.told:
                self.told = True
                print(f"younger than the regular expression engine's Unicode, may differ where it runs: "
                      f"{ranges(self.engine) or 'none'}")
            return lambda c: c in self.engine
        if normal is None:
            return lambda c: c in young

        # The other library's normal forms are of an older Unicode: Python's own tables are the judge.
        def right(c):
            places = ["{0}", "a{0}b {0}1{0}\n", "e{0}\u0301!{0}", "{0}{0}'{0}s"]
            if all(self.pair.same(place.format(chr(c))) for place in places):
                return False
            if c in young or unicodedata.category(chr(c)) == "Cn":  # too young for the judge
                return True
            forms = {"nfkc": ["NFKC"], "digit runs": ["NFD"], "nfkd nfc": ["NFKD", "NFC"]}.get(name, ["NFC"])
            for place in places:
                text = want = place.format(chr(c))
                for f in forms:
                    want = unicodedata.normalize(f, want)
                got = self.emo.decode(self.pair.tok, self.emo.encode(self.pair.tok, text.encode()))
                if got.decode().lstrip(" ") != want.lstrip(" "):
                    return False
            return True
        return right

    def pipeline(self, name):
        text = self.train(name)
        pair = Pair(self.emo, text, name)
        self.pair = pair
        excused = self.excused(name)
        normal = PIPELINES[name][1] is not None
        sparse = not self.full and name not in ("gpt2", "olmo1", "dolma2")
        prefix = "prefix" in name or "whole" in name or name == "digit runs"
        pair.check(self.part)
        for parse in (1, 0):
            pair.check(self.edges, parse, 0, excused)
        if PIPELINES[name][2].get("bos"):
            pair.check(self.part[:50] + [""], 1, 1)
        for data in self.wounded:
            text = data.decode(errors="replace")
            want = pair.other.encode(text, add_special_tokens=False).ids
            if self.emo.encode(pair.tok, data) != want and not any(excused(ord(x)) for x in text):
                raise Failed(f"{name}: bytes {data.hex()}")
        pair.decodes(self.edges[::7] + self.part[:20], not normal and not prefix)
        differ = check_code_points(pair, self.full, sparse, excused)
        again = Pair(self.emo, self.emo.to_json(pair.tok), name + ", saved")
        again.check(self.edges[::11] + self.part[:20], 1, 0, excused)
        again.close()
        pair.close()
        return (f"{len(self.part)} texts of the corpus, {len(self.edges)} edge cases, "
                f"{len(self.wounded)} damaged texts, {'code points' if sparse else 'every code point'}: "
                f"same ids{excuse(differ)}")

    def behaviors(self):
        """Every behaviour and inversion with every pattern, over random texts."""
        base = json.loads(self.train("gpt2"))
        alphabet = "aab1b22  \n'sSk\u212axX3あ漢_.é\u0301\u00b2ſ\r\t"
        texts = ["".join(self.rng.choice(alphabet) for _ in range(self.rng.randrange(1, 25))) for _ in range(150)]
        count = 0
        for pattern in PATTERNS:
            for behavior in BEHAVIORS:
                for invert in (False, True):
                    made = json.loads(tokenizer_of(sequence(split(pattern, behavior, invert), level())))
                    base["pre_tokenizer"] = made["pre_tokenizer"]
                    pair = Pair(self.emo, json.dumps(base), f"{pattern} {behavior}{' inverted' if invert else ''}")
                    pair.check(texts)
                    pair.close()
                    count += 1
        for literal in ["ab", "  ", "\n", "a+b", ".", "'s"]:
            for behavior in BEHAVIORS:
                pre = sequence(pre_tokenizers.Split(literal, behavior), level(True))
                base["pre_tokenizer"] = json.loads(tokenizer_of(pre))["pre_tokenizer"]
                pair = Pair(self.emo, json.dumps(base), f"literal {literal} {behavior}")
                pair.check(texts)
                pair.close()
                count += 1
        return f"{count} pre-tokenizers, {len(texts)} texts each: same ids"

    def added(self):
        """Added tokens with every flag, with and without normalisation."""
        count = 0
        flags = ["single_word", "lstrip", "rstrip", "normalized"]
        words = ["<x>", "<x>y", "ab", "abc", "é", "e\u0301t", "ﬁ", "  ", "[M]", "12", "_", "\u0301", "<|s|>", "Å"]
        pieces = words + ["Ⓐ", "²", " ", "  ", "\n", "a", "b", "c", "'s", "1",
                          "\u3000", "!", "x", "\u00c5", "fi", "A\u030a"]
        texts = ["".join(self.rng.choice(pieces) for _ in range(self.rng.randrange(1, 9))) for _ in range(250)]
        for name in ["gpt2", "olmo1", "nfkc", "dolma2", "gpt2 prefix"]:
            for _ in range(24):
                tok = Tokenizer.from_str(self.train(name))
                for word in self.rng.sample(words, 5):
                    token = AddedToken(word, special=self.rng.random() < 0.4,
                                       **{f: self.rng.random() < 0.4 for f in flags})
                    (tok.add_special_tokens if token.special else tok.add_tokens)([token])
                try:
                    pair = Pair(self.emo, tok.to_str(), f"added tokens over {name}")
                except RuntimeError as refusal:
                    if "spelling of other bytes" in str(refusal):
                        continue
                    raise
                for parse in (1, 0):
                    pair.check(texts, parse)
                saved = Pair(self.emo, self.emo.to_json(pair.tok), "saved")
                saved.check(texts[:40])
                saved.close()
                pair.close()
                count += 1
        return f"{count} sets of added tokens, {len(texts)} texts each, special ones parsed and not: same ids"

    def unknown(self):
        """Vocabularies that lack bytes, with and without an unk token."""
        for settings in [{}, {"unk_token": "<unk>"}, {"unk_token": "<unk>", "fuse_unk": True}]:
            data = json.loads(self.train("gpt2", alphabet=False))
            data["model"]["vocab"]["<unk>"] = max(data["model"]["vocab"].values()) + 1
            for token in [t for t in data["added_tokens"] if t["id"] == data["model"]["vocab"]["<unk>"]]:
                token["id"] += 1
            for gone in "zé~Ā":  # a letter, two bytes of characters, a control byte
                if gone in data["model"]["vocab"]:
                    keep = {t: i for t, i in data["model"]["vocab"].items() if gone not in t}
                    data["model"]["vocab"] = {t: i for i, t in enumerate(sorted(keep, key=keep.get))}
            vocab = data["model"]["vocab"]
            data["model"]["merges"] = [m for m in data["model"]["merges"] if all(p in vocab for p in pair_of(m))
                                       and "".join(pair_of(m)) in vocab]
            data["added_tokens"] = []
            data["model"].update(settings)
            pair = Pair(self.emo, json.dumps(data), f"unknown bytes {settings}")
            pair.check(self.edges + self.part[:50])
            pair.close()
        return "bytes without a token: dropped, unk, fused unk: same ids"

    def notations(self):
        """Merges as texts and as lists; what one library writes the other reads; the same training."""
        data = json.loads(self.train("dolma2"))
        data["model"]["merges"] = [" ".join(pair_of(m)) for m in data["model"]["merges"]]
        pair = Pair(self.emo, json.dumps(data), "merges as texts")
        pair.check(self.part[:100] + self.edges[::3])
        pair.close()
        ours = self.emo.train([t.encode() for t in self.sample], 2048)
        other = Tokenizer(models.BPE())
        other.pre_tokenizer = sequence(split(CL100K), level())
        other.train_from_iterator(self.sample, trainers.BpeTrainer(
            vocab_size=2047, min_frequency=2, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        a, b = json.loads(self.emo.to_json(ours))["model"], json.loads(other.to_str())["model"]
        if a["vocab"] != b["vocab"] or list(map(pair_of, a["merges"])) != list(map(pair_of, b["merges"])):
            raise Failed("training: other merges than theirs")
        pair = Pair(self.emo, self.emo.to_json(ours), "our training, our file")
        pair.check(self.part[:100])
        pair.close()
        self.emo.release(ours)
        return "both notations of merges, our file in theirs, the same training: same ids"

    def borders(self):
        """Ids in any order: the stream is the decoded bytes with replacement, in whole characters."""
        pair = Pair(self.emo, self.train("dolma2"), "random ids")
        size = len(json.loads(self.train("dolma2"))["model"]["vocab"])
        for _ in range(400):
            ids = [self.rng.randrange(self.rng.choice([300, size])) for _ in range(self.rng.randrange(1, 60))]
            want = self.emo.decode(pair.tok, ids).decode(errors="replace")
            theirs = pair.other.decode(ids, skip_special_tokens=False)
            if "".join(self.emo.stream(pair.tok, ids)) != want or theirs != want:
                raise Failed(f"random ids {ids}: {show(want)}")
        pair.close()
        return "400 sequences of random ids: the stream gives what decoding gives"

    def file(self, path, name):
        """A tokenizer.json as it is."""
        with open(path, encoding="utf-8") as f:
            text = f.read()
        begin = time.process_time()
        self.emo.release(self.emo.from_json(text))
        load = time.process_time() - begin
        pair = Pair(self.emo, text, name)
        skip = set()
        if pair.other.normalizer is not None or "[^\\r\\n\\p{L}\\p{P}" in text:
            self.excused("o200k")
            skip = self.engine

        def excused(c):
            return c in skip or (pair.other.normalizer is not None and not pair.same(chr(c)))

        pair.check(self.part)
        for parse in (1, 0):
            pair.check(self.edges, parse, 0, excused)
        pair.decodes([t for t in self.edges[::7] + self.part[:20] if not any(excused(ord(x)) for x in t)],
                     pair.other.normalizer is None)
        differ = check_code_points(pair, self.full, False, excused)
        pair.close()
        return (f"{pair.other.get_vocab_size()} tokens, loaded in {load:.2f} s; {len(self.part)} texts, "
                f"{len(self.edges)} edge cases, every code point: same ids{excuse(differ)}")


def pair_of(merge):
    return tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1])
    parser.add_argument("library")
    parser.add_argument("--corpus", action="append", default=[])
    parser.add_argument("--ranks")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("files", nargs="*")
    args = parser.parse_intermixed_args()
    run = Comparison(args)
    print(f"tokenizers {tokenizers.__version__}, {len(run.texts)} texts, "
          f"{sum(len(t.encode()) for t in run.texts)} bytes")
    for name in PIPELINES:
        run.part_of(name, lambda name=name: run.pipeline(name))
    run.part_of("behaviours", run.behaviors)
    run.part_of("added tokens", run.added)
    run.part_of("unknown", run.unknown)
    run.part_of("notations", run.notations)
    run.part_of("borders", run.borders)
    ranks = args.ranks or emo_tokenizers.find_ranks()
    with tempfile.TemporaryDirectory() as folder:
        if ranks is None:
            print("cl100k: left out, its ranks are not here (pip install litellm)")
        elif run.wanted("cl100k"):
            path = os.path.join(folder, "tokenizer.json")
            emo_tokenizers.write_cl100k(ranks, path)
            run.part_of("cl100k", lambda: run.file(path, "cl100k"))
        for path in args.files:
            run.part_of(os.path.basename(path), lambda path=path: run.file(path, os.path.basename(path)))
    print(f"{run.lines - run.failed} of {run.lines} comparisons agree")
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
