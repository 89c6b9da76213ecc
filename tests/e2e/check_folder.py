#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a model folder as any other program would, runs it in PyTorch, and compares with what libemo said.

check_folder.py FOLDER GENERATED.json DTYPE TOLERANCE

GENERATED.json is the output of `emo generate --json` (greedy). The forward pass is written here from the formulas of the
architecture, in float32 on the weights as the folder has them. With `transformers` or `tokenizers` installed, the
tokenizer's files and config.json are read with them too. Exit code 0, or 1 with what differs; 77 without PyTorch.
"""

import json
import os
import sys

try:
    import torch
except ImportError:
    print("PyTorch is not installed: the folder was not run in it")
    sys.exit(77)

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
WORDS = {"f32": ("F32", "float32"), "bf16": ("BF16", "bfloat16"), "f16": ("F16", "float16")}
problems = []


def expect(condition, words):
    if not condition:
        problems.append(words)


def read_safetensors(path):
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    expect(header.get("__metadata__", {}).get("format") == "pt", f"{path}: no format pt")
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data[begin:end], dtype=DTYPES[entry["dtype"]])
        tensors[name] = (entry["dtype"], flat.reshape(entry["shape"]))
    return tensors


def read_folder(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(folder, "model.safetensors"))
    with open(index) as file:
        weight_map = json.load(file)["weight_map"]
    tensors = {}
    for name in sorted(set(weight_map.values())):
        shard = read_safetensors(os.path.join(folder, name))
        for tensor in shard:
            expect(weight_map.get(tensor) == name, f"{tensor} is not where the index says")
        tensors.update(shard)
    expect(set(tensors) == set(weight_map), "the index and the shards differ")
    return tensors


def rms_norm(x, weight, eps):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def rotate(x, theta):
    length, width = x.shape[-2:]
    frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    first, second = x[..., : width // 2], x[..., width // 2 :]
    return x * cos + torch.cat([-second, first], -1) * sin


def swiglu(w, prefix, x):
    gate = torch.nn.functional.silu(x @ w[prefix + "gate_proj.weight"].T)
    return (gate * (x @ w[prefix + "up_proj.weight"].T)) @ w[prefix + "down_proj.weight"].T


def attention(w, c, prefix, x):
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    width = c.get("head_dim") or c["hidden_size"] // heads
    length = x.shape[0]

    def project(name, count):
        return (x @ w[prefix + name + ".weight"].T).reshape(length, count, width).transpose(0, 1)

    q, k, v = project("q_proj", heads), project("k_proj", kv_heads), project("v_proj", kv_heads)
    q, k = rotate(q, c["rope_theta"]), rotate(k, c["rope_theta"])
    k, v = (t.repeat_interleave(heads // kv_heads, 0) for t in (k, v))
    scores = q @ k.transpose(1, 2) / width**0.5
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, -1) @ w[prefix + "o_proj.weight"].T


def experts(w, c, prefix, x, count, shared):
    logits = x @ w[prefix + "gate.weight"].T
    routed = count - shared
    weight, chosen = logits[:, :routed].softmax(-1).topk(c["num_experts_per_tok"] - shared, -1)
    out = torch.zeros_like(x)
    for t in range(x.shape[0]):
        for e, g in zip(chosen[t].tolist(), weight[t]):
            out[t] += g * swiglu(w, f"{prefix}experts.{e}.", x[t])
    if shared:
        share = logits[:, routed:].softmax(-1)
        if c.get("emo_shared_expert_weights") == "one":
            share = torch.ones_like(share)
        for i in range(shared):
            out += share[:, i : i + 1] * swiglu(w, f"{prefix}experts.{routed + i}.", x)
    return out


def forward(w, c, ids):
    x = w["model.embed_tokens.weight"][ids]
    per_layer = c.get("num_experts_per_layer") or [c.get("num_experts", 0)] * c["num_hidden_layers"]
    shared = c.get("num_shared_experts_per_layer") or [c.get("num_shared_experts", 0)] * c["num_hidden_layers"]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        x = x + attention(w, c, p + "self_attn.", rms_norm(x, w[p + "pre_attention_layernorm.weight"], c["rms_norm_eps"]))
        y = rms_norm(x, w[p + "pre_feedforward_layernorm.weight"], c["rms_norm_eps"])
        x = x + (experts(w, c, p + "mlp.", y, per_layer[l], shared[l]) if per_layer[l] else swiglu(w, p + "mlp.", y))
    head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    return rms_norm(x, w["model.norm.weight"], c["rms_norm_eps"]) @ head.T


def check_run(folder, generated, dtype, tolerance, prompt_ids):
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    expect(config["architectures"] == ["EmoForCausalLM"] and config["model_type"] == "emo", "not the reference's class")
    expect(config["dtype"] == WORDS[dtype][1] == config["torch_dtype"], f"config.json says {config['dtype']}")
    tensors = read_folder(folder)
    for name, (kind, _) in tensors.items():
        expect(kind == WORDS[dtype][0], f"{name} is {kind}")
    weights = {name: value.float() for name, (_, value) in tensors.items()}
    ids, worst = list(prompt_ids), 0.0
    for token, logprob in zip(generated["tokens"], generated["logprobs"]):
        logp = forward(weights, config, torch.tensor(ids))[-1].log_softmax(-1)
        expect(int(logp.argmax()) == token, f"token {len(ids)}: PyTorch says {int(logp.argmax())}, libemo {token}")
        worst = max(worst, abs(float(logp[token]) - logprob))
        ids.append(token)
    expect(worst <= tolerance, f"log-probabilities differ by {worst:.2e}, tolerance {tolerance:.0e}")
    print(f"{folder}: {len(generated['tokens'])} tokens in {dtype}, log-probabilities within {worst:.1e}")


def check_tokenizer(folder, text, prompt_ids):
    path = os.path.join(folder, "tokenizer.json")
    try:
        import tokenizers

        ids = tokenizers.Tokenizer.from_file(path).encode(text, add_special_tokens=False).ids
        expect(ids == prompt_ids[-len(ids) :], "tokenizers gives other ids")
    except ImportError:
        print("tokenizers is not installed: tokenizer.json was not read with it")
    try:
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        expect(ids == prompt_ids[-len(ids) :], "transformers' tokenizer gives other ids")
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        expect(tokenizer.eos_token_id == config["eos_token_id"], "transformers sees another end of text")
        generation = transformers.GenerationConfig.from_pretrained(folder)
        expect(generation.eos_token_id == config["eos_token_id"], "generation_config.json has another end of text")
    except ImportError:
        print("transformers is not installed: config and tokenizer were not read with it")


def main():
    folder, generated_path, dtype, tolerance, ids_path = sys.argv[1:]
    torch.set_num_threads(1)
    with open(generated_path) as file:
        generated = json.load(file)
    with open(ids_path) as file:
        prompt_ids = [int(word) for word in file.read().split()]
    with open(os.path.join(folder, "config.json")) as file:
        prompt_ids = [json.load(file)["eos_token_id"]] + prompt_ids  # sessions begin as training rows do
    with torch.no_grad():
        check_run(folder, generated, dtype, float(tolerance), prompt_ids)
    check_tokenizer(folder, generated["prompt"], prompt_ids)
    for words in problems:
        print(f"{folder}: {words}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
