#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of scripts/modularity.sh: the modularity experiment on a labelled corpus."""

import argparse
import sys

from experiment import ROUTED, Experiment, Failed
from report import align, domain_rows, page, summary_rows, verdict

METHODS = ["usage", "layerwise", "easy-ep"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emo", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=8_500_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()

    run = Experiment(args.emo, args.out, args.corpus)
    run.split_by_domain("valid")
    run.split_by_domain("test")
    run.tokenizer()
    for model in ("emo", "standard"):
        tokens = run.train(model, ("--tokens", args.tokens), seed=args.seed, window=args.window)
    keeps = [ROUTED // 2, ROUTED // 4, ROUTED // 8]
    methods = args.methods.split(",")
    result = run.measure(keeps, methods, list(range(1, args.draws + 1)), pools=keeps)
    result.update(tokens=tokens, seed=args.seed, window=args.window)
    run.write(result)
    method = "layerwise" if "layerwise" in methods else methods[0]
    metrics = {model: run.metrics(model) for model in result["models"]}
    with open(run.path("index.html"), "w", encoding="utf-8") as file:
        file.write(page(result, metrics, method, ROUTED // 4, (), [f"{tokens} tokens each, seed {args.seed}."]))
    first, second, holds = verdict(result, method, ROUTED // 4)
    print(f"Bits per byte on the test split, {len(run.domains)} domains, {tokens} tokens of training each; subsets from "
          f"one validation document, mean of {args.draws} draws; the shared expert always stays\n")
    print(align(summary_rows(result)))
    print(f"\nBy domain, {method}:\n")
    print(align(domain_rows(result, method)))
    print(f"\n{first}\n{second}\n\nNumbers: {run.path('results.json')}")
    return 0 if holds else 3


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"modularity: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
