#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs GGUF files that libemo wrote in llama.cpp and in libemo, and compares.

usage: compare_llama.py LIBEMO.so EMO [--model FOLDER --data FILE.jsonl[.gz]] [--ranks FILE] [--only PART]

A small model is trained here and now; --model takes a trained one of f32 instead, --data texts that it was not trained
on. --ranks is the rank file of cl100k (found by itself where the package litellm is installed). The parts: shapes,
tokenizers, trained, quantisers. Needs llama-cpp-python: exits with 77 where it is missing.
"""
import argparse
import gzip
import json
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import llama_cpp
    import numpy as np
except ImportError as e:
    print(f"skipped: no llama-cpp-python ({e})")
    sys.exit(77)

import emo_tokenizers
from emo_models import TYPES, Emo, Llama, kl, llama_quantise, loss, read_safetensors, write_safetensors

# f32 differs in the order of sums only.
F32_LOGITS = 1e-4
# llama.cpp rounds the activations as well: to bf16 and f16 before such weights, to 8 bits before blocks.
KL_SAME_FILE = {"f32": 1e-8, "bf16": 1e-3, "f16": 1e-4, "q8_0": 1e-2, "q4_0": 1e-2, "q4_k": 1e-2}
# Against f32 in libemo: what 8 and 4 bits may cost.
KL_TO_F32 = {"f32": 1e-10, "bf16": 1e-3, "f16": 1e-4, "q8_0": 1e-2, "q4_0": 0.2, "q4_k": 0.2}
QUANTISER = 1.01

failures = 0


def check(good, what):
    global failures
    if not good:
        failures += 1
        print(f"FAILED: {what}")


def shapes():
    """Configurations, each of another kind; large weights, so that every token has its own logits."""
    base = {"model_type": "emo", "vocab_size": 300, "max_position_embeddings": 128, "eos_token_id": 256,
            "num_hidden_layers": 3, "rms_norm_eps": 1e-5, "rope_theta": 500000.0}
    yield "GQA, shared, a dense layer first", 0.06, dict(
        base, hidden_size=256, intermediate_size=256, num_attention_heads=8, num_key_value_heads=2,
        num_experts_per_layer=[0, 9, 9], num_shared_experts_per_layer=[0, 1, 1], num_experts_per_tok=4,
        dense_intermediate_size=512)
    yield "no shared expert, tied, heads of 32", 0.12, dict(
        base, vocab_size=301, hidden_size=96, intermediate_size=32, num_attention_heads=3, num_experts=6,
        num_experts_per_tok=2, tie_word_embeddings=True)
    yield "one routed expert beside the shared one", 0.12, dict(
        base, hidden_size=64, intermediate_size=96, num_attention_heads=1, num_experts=2, num_shared_experts=1,
        num_experts_per_tok=2, rms_norm_eps=1e-6, rope_theta=10000.0)
    yield "every expert active, heads of 8, MQA", 0.12, dict(
        base, hidden_size=64, intermediate_size=32, num_attention_heads=8, num_key_value_heads=1, num_experts=5,
        num_shared_experts=1, num_experts_per_tok=5, num_hidden_layers=1)
    yield "40 experts of 32", 0.12, dict(
        base, hidden_size=160, intermediate_size=32, num_attention_heads=5, num_experts=41, num_shared_experts=1,
        num_experts_per_tok=7)
    yield "dense", 0.12, dict(
        base, model_type="olmo2_noqknorm_prenorm", hidden_size=64, intermediate_size=96, num_attention_heads=4,
        num_key_value_heads=2)


def same_file(emo, path, kind, ids, what, narrow):
    """One file in both programs; libemo's logits, after they were compared. On some CPUs llama.cpp's products of several
    tokens with blocks are wrong where rows are a single block of 32 (`narrow`); those with one token are right."""
    model, other = emo.open(path), Llama(path, len(ids))
    ours, theirs = emo.logits(model, ids, other.size), other.logits(ids, not narrow or kind in ("f32", "bf16", "f16"))
    apart, most = kl(theirs, ours), float(np.abs(ours - theirs).max())
    print(f"  {kind:5} largest difference of logits {most:.1e} (they reach {np.abs(theirs).max():.1f}), KL {apart:.1e}")
    check(kind != "f32" or most <= F32_LOGITS, f"{what}, {kind}: logits differ by {most}")
    check(apart <= KL_SAME_FILE[kind], f"{what}, {kind}: KL {apart}")
    emo.close(model)
    other.close()
    return ours


def compare_shapes(emo, folder):
    for what, spread, config in shapes():
        print(what)
        model = emo.create(dict(config, initializer_range=spread))
        emo.give_bytes(model)
        rng = random.Random(5)
        ids = [rng.randrange(config["vocab_size"]) for _ in range(config["max_position_embeddings"])]
        exact = emo.logits(model, ids, config["vocab_size"])
        for kind in TYPES:
            emo.export(model, folder / "m.gguf", kind)
            ours = same_file(emo, folder / "m.gguf", kind, ids, what, config["intermediate_size"] == 32)
            check(kind != "f32" or np.array_equal(ours, exact), f"{what}: the file is not the model")
        if config.get("num_experts", 0) == 41:
            compare_part(emo, model, folder, ids, config["vocab_size"])
        emo.close(model)


def compare_part(emo, model, folder, ids, vocab):
    """A subset, and the pruned model: the same file content, the same logits, in both programs."""
    print("a quarter of its experts")
    rng = random.Random(9)
    dropped = [(layer, e) for layer in range(3) for e in rng.sample(range(40), 30)]
    mask = emo.mask(model, dropped)
    pruned = emo.prune(model, mask)
    emo.save(pruned, folder / "pruned")
    again = emo.open(folder / "pruned")
    exact = emo.logits(pruned, ids, vocab)
    for kind in ("f32", "q8_0"):
        emo.export(model, folder / "subset.gguf", kind, mask)
        emo.export(again, folder / "pruned.gguf", kind)
        for name in ("subset", "pruned"):
            ours = same_file(emo, folder / f"{name}.gguf", kind, ids, name, True)
            check(kind != "f32" or np.array_equal(ours, exact), f"{name}: the file is not the pruned model")
    emo.lib.emo_mask_release(mask)
    emo.close(again)
    emo.close(pruned)


# ---- tokenizers ----

WORDS = ("river bridge water stone boat shore fish net tide wave oven flour butter sugar knead bake bread crust salt "
         "court judge law claim appeal statute clause party lease title Ärger naïve 東京 don't it's I'LL 1234 56.7").split()


def documents(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        topic, out = rng.randrange(3), []
        for j in range(60):
            out.append(WORDS[10 * topic + rng.randrange(10)] if j % 2 else rng.choice(WORDS[-7:] + ["the", "of", "a"]))
        yield " ".join(out) + "."

LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, LEVEL]}


def odd_texts(texts):
    rng = random.Random(3)
    yield from texts
    yield "  two  spaces\n\n\nlines\r\n\ttabs   end   "
    yield "it'S DON'T We'Ll 'tis 12345678 1,000.5 a1b2 x_y/z?! ... «guillemets» — dash"
    yield "日本語のテキスト 한국어 עברית العربية हिन्दी ไทย 👩‍👩‍👧‍👦🇩🇪 e\u0301 \u200d\ufeff"
    for _ in range(200):
        yield bytes(rng.randrange(256) for _ in range(60)).decode("utf-8", "replace").replace("\0", " ")
        yield "".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(160, 0x2000)])) for _ in range(40))


def compare_ids(emo, tok, folder, what, vocab, texts):
    """A tokenizer in a file: its ids, those of the file's arrays alone, and llama.cpp's."""
    model = emo.create({"vocab_size": vocab, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                        "num_attention_heads": 1, "num_experts": 2, "num_experts_per_tok": 1, "eos_token_id": 0})
    emo.give(model, tok)
    emo.export(model, folder / "ids.gguf", "f16")
    emo.close(model)
    data = (folder / "ids.gguf").read_bytes()
    (folder / "arrays.gguf").write_bytes(data.replace(b"tokenizer.huggingface.json", b"tokenizer.someoneelse.json", 1))
    arrays = emo.open(folder / "arrays.gguf")
    other, wrong = Llama(folder / "ids.gguf", 64), []
    for text in (t.encode() for t in texts):
        ids = emo.encode(tok, text, 0)
        if ids != other.tokenize(text) or ids != emo.encode(emo.tokenizer(arrays), text, 0):
            wrong.append(text)
    emo.close(arrays)
    other.close()
    print(f"tokenizer {what}: {len(wrong)} of {len(texts)} texts with other ids")
    check(not wrong, f"{what}: other ids for {wrong[:1]!r}")


def compare_tokenizers(emo, folder, ranks):
    texts = list(odd_texts(documents(2, 40)))
    trained = emo.train([t.encode() for t in documents(1, 100)], 500)
    base = json.loads(emo.to_json(trained))
    emo.release(trained)
    cl100k = emo_tokenizers.CL100K
    for what, cut, whole in [("cl100k", split(cl100k), False), ("llama-3", split(cl100k), True),
                             ("gpt-2", dict(LEVEL, use_regex=True), False),
                             ("qwen2", split(cl100k.replace(r"\p{N}{1,3}", r"\p{N}")), False)]:
        tok = emo.from_json(json.dumps(dict(base, pre_tokenizer=cut, model=dict(base["model"], ignore_merges=whole))))
        compare_ids(emo, tok, folder, what, 512, texts)
        emo.release(tok)
    if ranks is not None:
        emo_tokenizers.write_cl100k(ranks, folder / "cl100k.json")
        tok = emo.load(str(folder / "cl100k.json"))
        compare_ids(emo, tok, folder, "cl100k of 100278 tokens", 100352, texts)
        emo.release(tok)


# ---- a trained model ----

def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


def train(emo_program, folder):
    with open(folder / "docs.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"text": text}) + "\n" for text in documents(1, 300))
    (folder / "config.json").write_text(json.dumps({
        "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8,
        "num_key_value_heads": 4, "num_experts": 9, "num_shared_experts": 1, "num_experts_per_tok": 3,
        "max_position_embeddings": 256}))
    run(emo_program, "tokenizer", "train", "--data", folder / "docs.jsonl", "--vocab-size", 400, "--out",
        folder / "tok.json", "--quiet")
    run(emo_program, "train", "--config", folder / "config.json", "--tokenizer", folder / "tok.json", "--data",
        folder / "docs.jsonl", "--pool", "uniform:2:8", "--batch", 8, "--seq-len", 64, "--steps", 80, "--lr", 0.004,
        "--out", folder / "trained", "--quiet")
    return folder / "trained", list(documents(2, 12))


def read_texts(path):
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f]


def compare_trained(emo, program, folder, model_folder, texts):
    model = emo.open(model_folder)
    tok = emo.tokenizer(model)
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    positions, eos = config["max_position_embeddings"], config["eos_token_id"]
    emo.export(model, folder / "f32.gguf", "f32")
    other = Llama(folder / "f32.gguf", positions)

    wrong = [t for t in odd_texts(texts) if emo.encode(tok, t.encode(), 0) != other.tokenize(t.encode())]
    print(f"ids: {len(wrong)} of {len(list(odd_texts(texts)))} texts differ")
    check(not wrong, f"llama.cpp has other ids for {wrong[:1]!r}")

    for text in texts[:8]:
        prompt = " ".join(text.split(" ")[:6])
        (folder / "prompt").write_text(prompt, encoding="utf-8")
        args = ("--prompt-file", folder / "prompt", "--tokens", 48, "--quiet")
        a = run(program, "generate", "--model", model_folder, *args).rstrip("\n")
        b = run(program, "generate", "--model", folder / "f32.gguf", *args).rstrip("\n")
        d = other.greedy(prompt.encode(), 48, eos).decode("utf-8", "replace").rstrip("\n")
        check(a == b, f"from GGUF other text: {prompt!r}: {a!r}, {b!r}")
        check(a == d, f"llama.cpp writes other text: {prompt!r}: {a!r}, {d!r}")
    print(f"greedy: {a[:60]!r} ... the same from the folder, from GGUF, and in llama.cpp")
    other.close()

    vocab = config["vocab_size"]
    ids = [[eos, *emo.encode(tok, t.encode(), 0)][:min(256, positions)] for t in texts]
    exact = [emo.logits(model, i, vocab) for i in ids]
    tokens = sum(len(i) - 1 for i in ids)
    base = sum(loss(e, i) * (len(i) - 1) for e, i in zip(exact, ids)) / tokens
    print(f"{tokens} tokens; perplexity of f32 {np.exp(base):.4f}")
    for kind in TYPES:
        fallbacks = emo.export(model, folder / "t.gguf", kind)
        ours, theirs = emo.open(folder / "t.gguf"), Llama(folder / "t.gguf", positions)
        sums = np.zeros(5)
        for e, i in zip(exact, ids):
            a, b = emo.logits(ours, i, vocab), theirs.logits(i)
            sums[:4] += np.array([kl(b, a), kl(e, a), loss(a, i), loss(b, i)]) * (len(i) - 1) / tokens
            sums[4] = max(sums[4], np.abs(a - b).max())
        emo.close(ours)
        theirs.close()
        size = (folder / "t.gguf").stat().st_size
        print(f"  {kind:5} {size / 1e6:6.2f} MB{f', {fallbacks} as q8_0' if fallbacks else ''}: perplexity "
              f"{np.exp(sums[2]):.4f} (llama.cpp {np.exp(sums[3]):.4f}), KL from f32 {sums[1]:.1e}, "
              f"from llama.cpp {sums[0]:.1e}, largest difference of logits {sums[4]:.1e}")
        check(sums[0] <= KL_SAME_FILE[kind], f"trained, {kind}: KL {sums[0]} between the two programs")
        check(sums[1] <= KL_TO_F32[kind], f"trained, {kind}: KL {sums[1]} from f32")
        check(kind != "f32" or sums[4] <= F32_LOGITS, f"trained: logits differ by {sums[4]}")
    emo.close(model)


# ---- quantisers ----

def carrier(emo, folder, weights):
    """A model whose embedding is this matrix of rows of 256."""
    config = {"model_type": "olmo2_noqknorm_prenorm", "vocab_size": len(weights), "hidden_size": 256,
              "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
              "max_position_embeddings": 64, "eos_token_id": 1}
    model = emo.create(config)
    emo.save(model, folder)
    emo.close(model)
    tensors = read_safetensors(folder / "model.safetensors")
    write_safetensors(folder / "model.safetensors", dict(tensors, **{"model.embed_tokens.weight": weights}))
    return emo.open(folder)


def compare_quantisers(emo, folder, trained):
    rng = np.random.default_rng(4)
    tensors = sorted(read_safetensors(trained / "model.safetensors").items())
    flat = np.concatenate([a.reshape(-1) for _, a in tensors if a.ndim == 2])
    kinds = {"Gaussian": rng.standard_normal((4096, 256)).astype(np.float32) * 0.02,
             "Laplace": rng.laplace(size=(4096, 256)).astype(np.float32) * 0.02,
             "trained": flat[:len(flat) // 256 * 256].reshape(-1, 256)}
    for what, weights in kinds.items():
        model = carrier(emo, folder / what, weights)
        emo.export(model, folder / "f32.gguf", "f32")
        emo.close(model)
        for kind in ("q8_0", "q4_0", "q4_k"):
            model = emo.open(folder / what)
            emo.export(model, folder / "ours.gguf", kind)
            emo.close(model)
            llama_quantise(folder / "f32.gguf", folder / "theirs.gguf", kind)
            errors = []
            for name in ("ours", "theirs"):
                model = emo.open(folder / f"{name}.gguf")
                got = emo.tensor(model, "model.embed_tokens.weight").reshape(weights.shape)
                errors.append(float(np.sqrt(np.mean((got.astype(np.float64) - weights) ** 2))))
                emo.close(model)
            print(f"  {what:8} {kind}: root mean square error {errors[0]:.4e}, llama.cpp's {errors[1]:.4e}, "
                  f"ratio {errors[0] / errors[1]:.4f}")
            check(errors[0] <= QUANTISER * errors[1], f"{what}, {kind}: {errors[0] / errors[1]:.4f} of the error")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("program")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--data")
    parser.add_argument("--ranks", default=emo_tokenizers.find_ranks())
    parser.add_argument("--only", choices=["shapes", "tokenizers", "trained", "quantisers"])
    args = parser.parse_args()
    print(f"llama-cpp-python {llama_cpp.__version__}")
    emo = Emo(args.library)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if args.only in (None, "shapes"):
            compare_shapes(emo, folder)
        if args.only in (None, "tokenizers"):
            compare_tokenizers(emo, folder, args.ranks)
        if args.only not in ("shapes", "tokenizers"):
            model, texts = (args.model, read_texts(args.data)[:40]) if args.model else train(args.program, folder)
        if args.only in (None, "trained"):
            compare_trained(emo, args.program, folder, model, texts)
        if args.only in (None, "quantisers"):
            compare_quantisers(emo, folder, model)
    print(f"{failures} failures")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
