#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of scripts/modularity.sh: the modularity experiment on a labelled corpus."""

from experiment import MODELS, Experiment, options, run_main
from report import align, domain_rows, page, summary_rows, verdict

METHODS = ["usage", "layerwise", "easy-ep"]


def main():
    parser = options(__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()

    run = Experiment(args.emo, args.out, args.corpus, args.jobs)
    run.split_by_domain("valid")
    run.split_by_domain("test")
    run.tokenizer()
    for model in MODELS:
        tokens = run.train(model, ("--tokens", args.tokens or 8_500_000), seed=args.seed, window=args.window)
    methods = args.methods.split(",")
    result = run.measure(run.keeps, methods, list(range(1, args.draws + 1)), pools=run.keeps)
    result.update(tokens=tokens, seed=args.seed, window=args.window)
    run.write(result)
    method = "layerwise" if "layerwise" in methods else methods[0]
    metrics = {model: run.metrics(model) for model in result["models"]}
    with open(run.path("index.html"), "w", encoding="utf-8") as file:
        file.write(page(result, metrics, method, run.routed // 4, (), [f"{tokens} tokens each, seed {args.seed}."]))
    first, second, holds = verdict(result, method, run.routed // 4)
    print(f"Bits per byte on the test split, {len(run.domains)} domains, {tokens} tokens of training each; subsets from "
          f"one validation document, mean of {args.draws} draws; the shared expert always stays\n")
    print(align(summary_rows(result)))
    print(f"\nBy domain, {method}:\n")
    print(align(domain_rows(result, method)))
    print(f"\n{first}\n{second}\n\nNumbers: {run.path('results.json')}")
    return 0 if holds else 3


if __name__ == "__main__":
    run_main("modularity", main)
