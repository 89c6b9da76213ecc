#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a tokenizer and a tiny EMO model on documents; Ctrl-C writes a checkpoint, and the next start goes on from it.

    python3 train_tiny.py OUT DOCUMENTS... [--steps N]
"""
import argparse
import sys

import emo

CONFIG = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_experts": 17,
          "num_shared_experts": 1, "num_experts_per_tok": 5, "max_position_embeddings": 512}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()

    tokenizer = emo.Tokenizer.train(emo.Texts(arguments.documents), vocab_size=1024)
    data = emo.Dataset(arguments.documents, tokenizer)
    model = emo.Model(CONFIG, tokenizer=tokenizer, seed=1)
    print("%r on %r" % (model, data))
    with emo.Trainer(model, data, pool="uniform:4:16", max_steps=arguments.steps, batch_rows=8, seq_len=128,
                     out=arguments.out, resume=1) as trainer:
        try:
            for step in trainer:
                if step.step % 10 == 0 or step.step == step.steps:
                    print("step %d of %d: loss %.3f, %.0f tokens a second" %
                          (step.step, step.steps, step.loss, step.tokens_per_second))
        except KeyboardInterrupt:
            trainer.checkpoint()
            sys.exit("stopped at step %d; start again to go on" % trainer.at)
    print("wrote", arguments.out)


if __name__ == "__main__":
    try:
        main()
    except emo.Error as error:
        sys.exit("%s: %s" % (type(error).__name__, error))
