#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of scripts/quickstart.sh: from gathered documents to the table and the page."""

import argparse
import time

from experiment import ROUTED, Experiment, run_main
from report import align, domain_rows, page, summary_rows, verdict

KEEPS = [ROUTED // 4, ROUTED // 8]
METHOD = "layerwise"
TEST_BYTES = 40_000  # a domain: some 12 000 tokens, enough to tell 1 % from 3 % and quick to score
MEASURING = 110      # seconds set aside for everything after training


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emo", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, required=True, help="what is left of the whole run")
    args = parser.parse_args()
    started = time.monotonic()

    run = Experiment(args.emo, args.out, args.corpus)
    run.split_by_domain("valid")
    run.split_by_domain("test", TEST_BYTES)
    run.tokenizer()
    left = args.seconds - MEASURING - (time.monotonic() - started)
    minutes = max(0.5, left / 2 / 60)
    tokens = run.train("emo", ("--minutes", f"{minutes:.2f}"))
    # The same number of tokens for both: a comparison at equal time would compare speeds too.
    run.train("standard", ("--tokens", tokens))
    result = run.measure(KEEPS, [METHOD], [1])
    result["tokens"] = tokens
    prose = [d for d in ("bible", "anarchism", "debian") if d in run.domains] or run.domains
    passages = [run.generate("emo", prose[0], METHOD, KEEPS[0])]
    result["passages"] = passages
    run.write(result)

    first, second, holds = verdict(result, METHOD, KEEPS[0])
    metrics = {model: run.metrics(model) for model in result["models"]}
    with open(run.path("index.html"), "w", encoding="utf-8") as file:
        file.write(page(result, metrics, METHOD, KEEPS[0], passages, [
            f"{tokens} tokens each, 4 layers, hidden size 128, {ROUTED} routed experts of 64 and one shared, the same "
            "data, seed and settings; only the EMO was trained with document pools."]))
    print(f"\nBits per byte on held-out documents; subsets by {METHOD} selection from one document\n")
    print(align(domain_rows(result, METHOD)))
    print()
    print(align(summary_rows(result)))
    print(f"\nFrom the {prose[0]} subset ({KEEPS[0]} of {ROUTED} routed experts):")
    print(f"  {passages[0]['prompt']} |{passages[0]['text']}")
    print(f"\nPage: {run.path('index.html')}\n\n{first}\n{second}")
    return 0 if holds else 3


if __name__ == "__main__":
    run_main("quickstart", main)
