#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prompts and generation of a GGUF file in llama.cpp: llama_infer.py MODEL.gguf [--threads N] [--prompt N] [--tokens N].

The other side of `emo bench --what prefill decode`, through llama-cpp-python: once to warm up, then a prompt and one token
at a time after it. Prints a JSON object: tokens a second of prefill and decode. Status 77 when llama_cpp is not installed.
"""

import argparse
import json
import sys
import time

try:
    from llama_cpp import llama_cpp as c
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def decode(context, ids):
    array = (c.llama_token * len(ids))(*ids)
    began = time.perf_counter()
    if c.llama_decode(context, c.llama_batch_get_one(array, len(ids))) != 0:
        raise RuntimeError("llama_decode failed")
    c.llama_synchronize(context)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description="Speed of a GGUF file in llama.cpp.")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=16)
    args = parser.parse_args()
    silence = c.llama_log_callback(lambda level, text, data: None)  # must live as long as it may be called
    c.llama_log_set(silence, None)
    c.llama_backend_init()
    model_options = c.llama_model_default_params()
    model_options.n_gpu_layers = 0
    model = c.llama_model_load_from_file(args.model.encode(), model_options)
    if not model:
        sys.exit(f"{args.model}: llama.cpp does not load it")
    options = c.llama_context_default_params()
    options.n_ctx = args.prompt + args.tokens + 8
    options.n_batch = options.n_ubatch = max(args.prompt, 32)
    options.n_threads = options.n_threads_batch = args.threads
    vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    prompt = [(i * 7919 + i * i % 97) % (vocab - 1) for i in range(args.prompt)]
    for _ in range(2):
        context = c.llama_init_from_model(model, options)
        of_prompt, of_tokens = decode(context, prompt), 0.0
        for i in range(args.tokens):
            of_tokens += decode(context, [(i * 31 + 7) % (vocab - 1)])
        c.llama_free(context)
    print(json.dumps({"prefill": args.prompt / of_prompt, "decode": args.tokens / of_tokens}))


if __name__ == "__main__":
    main()
