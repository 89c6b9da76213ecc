#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of scripts/finetune_table.sh: subsets before and after fine-tuning, and merged back."""

import json
import os
import random
import shutil

from experiment import BATCH, MODELS, Experiment, Failed, given_models, model_options, options, run_main
from report import align, finetune_rows, finetune_verdict, merged_rows

METHOD = "layerwise"
PROMPT, COMPLETION = 400, 130  # characters, about
CHOICES = 4


def cut(text, at, length):
    """Where a piece of at most `length` characters from `at` on ends: at the last white space of its second half."""
    end = at + length
    if end >= len(text):
        return len(text)
    return next((i for i in range(end, at + length // 2, -1) if text[i].isspace()), end)


def pairs(text):
    """A document as prompts and what follows each, one behind the other. A completion begins with its white space."""
    found, at = [], 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        middle = cut(text, at, PROMPT)
        end = cut(text, middle, COMPLETION)
        if end - middle < COMPLETION // 2:
            return found
        found.append((text[at:middle], text[middle:end]))
        at = end


def make_items(documents, seed):
    """Multiple-choice items from the pairs of a domain's documents, one document after the other: the right
    continuation among those of other documents."""
    found = [(i, prompt, completion) for i, text in enumerate(documents) for prompt, completion in pairs(text)]
    rng, items = random.Random(seed), []
    for document, prompt, completion in found:
        others = [c for i, _, c in found if i != document]
        if len(others) < CHOICES - 1:
            return []
        choices = [completion, *rng.sample(others, CHOICES - 1)]
        rng.shuffle(choices)
        items.append({"context": prompt, "choices": choices, "answer": choices.index(completion)})
    return items


class Tuning(Experiment):
    def prepare(self, args):
        self.args = args
        self.split_by_domain("valid")
        self.split_by_domain("test", args.test_bytes or 40_000)
        self.tokenizer()
        # A pair must lie in one window; longer rows also cut fewer of them in two.
        self.window = min(self.config["max_position_embeddings"], 4 * self.row)
        self.tuned = args.domains.split(",") if args.domains else self.domains
        unknown = [domain for domain in self.tuned if domain not in self.domains]
        if unknown:
            raise Failed(f"{self.corpus} has no domain {unknown[0]}; it has {', '.join(self.domains)}")
        self.write_pairs()
        self.write_items()

    def write_lines(self, kind, domain, rows):
        os.makedirs(self.path(kind), exist_ok=True)
        with open(self.path(kind, domain + ".jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(dict(row, domain=domain), ensure_ascii=False) + "\n" for row in rows)

    def texts(self, split):
        texts = {domain: [] for domain in self.tuned}
        for _, document in self.lines(split):
            if document["domain"] in texts:
                texts[document["domain"]].append(document["text"])
        return texts

    def write_pairs(self):
        """What is tuned on: pairs from the training split."""
        for domain, texts in self.texts("train").items():
            rows = [{"prompt": p, "completion": c} for text in texts for p, c in pairs(text)]
            if not rows:
                raise Failed(f"the training documents of {domain} are too short to make prompts of")
            self.write_lines("pairs", domain, rows)

    def write_items(self):
        """What is measured: items on the test documents, as choices and, with the right answer alone, as pairs."""
        items = {domain: [] for domain in self.tuned}
        if self.has("mc"):
            for _, item in self.lines("mc"):
                if item["domain"] in items:
                    items[item["domain"]].append({key: item[key] for key in ("context", "choices", "answer")})
        else:
            items = {domain: make_items(texts, self.args.seed) for domain, texts in self.texts("test").items()}
        for domain, rows in items.items():
            if not rows:
                raise Failed(f"there are no held-out items of {domain}, nor documents to make them of")
            rows = rows[:self.args.items or None]
            self.write_lines("choices", domain, rows)
            self.write_lines("items", domain, [{"prompt": row["context"], "completion": row["choices"][row["answer"]]}
                                               for row in rows])

    # -- measuring

    def items(self, model, domain, *mask):
        """Loss and bits per byte of the right answers, and how often they are the likeliest of the choices."""
        loss = self.evaluate(model, *mask, data=self.path("items", domain + ".jsonl"), threads=1, context=self.window)
        choices = json.loads(self.run("eval", "--model", self.folder(model), "--choices",
                                      self.path("choices", domain + ".jsonl"), "--context", self.window, "--threads", 1,
                                      "--json", *mask))
        return {"loss": loss["loss"], "bits_per_byte": loss["bits_per_byte"], "accuracy": choices["accuracy"],
                "items": choices["items"]}

    def tune(self, parent, out, domain, mask, seed, key):
        """Fine-tunes the routed experts (those of the mask) on pairs. A run that other settings began is thrown away."""
        mark = self.path(out + ".json")
        if not (os.path.exists(mark) and open(mark, encoding="utf-8").read() == json.dumps(key)):
            shutil.rmtree(self.path(out), ignore_errors=True)
            with open(mark, "w", encoding="utf-8") as file:
                json.dump(key, file)
        rows = max(1, round(BATCH * self.row / self.window))
        # Nothing balances: the routers stay as they are, and one domain is not to be spread over all experts.
        self.run("train", "--from", self.folder(parent), *mask, "--train-only", "experts", "--data",
                 self.path("pairs", domain + ".jsonl"), "--pool", "none", "--balance-weight", 0, "--z-weight", 0,
                 "--lr", self.args.tune_lr, "--schedule", "cosine", "--batch", rows, "--seq-len", self.window,
                 "--steps", self.args.tune_steps, "--seed", seed, "--threads", 1, "--quiet", "--resume", "--out",
                 self.path(out))

    def measure_case(self, case, key):
        model, keep, draw, domain = case
        whole = keep == self.routed
        mask = () if whole else ("--mask", self.mask(model, METHOD, keep, draw, domain))
        tuned = os.path.join("tuned", f"{model}-{keep}-{draw}-{domain}")
        child, merged = tuned + "-child", tuned + "-merged"
        for leftover in (child, merged):
            shutil.rmtree(self.path(leftover), ignore_errors=True)
        result = {"keep": keep, "draw": draw, "domain": domain, "before": self.items(model, domain, *mask)}
        self.tune(model, tuned, domain, mask, draw, key)
        if whole:  # the tuned model is the merged one
            child = merged = tuned
        else:
            self.run("prune", "--model", self.path(tuned), *mask, "--out", self.path(child))
            self.run("merge", "--parent", self.folder(model), "--child", self.path(child), "--out", self.path(merged))
        result["after"] = self.items(child, domain)
        result["merged"] = {"documents": self.by_domain(merged, threads=1), **self.items(merged, domain)}
        for folder in {tuned, child, merged}:
            shutil.rmtree(self.path(folder), ignore_errors=True)
        os.remove(self.path(tuned + ".json"))
        self.say(f"  {model}, {keep} of {self.routed} routed experts, {domain}: "
                 f"{result['before']['bits_per_byte']:.3f} bits per byte before, "
                 f"{result['after']['bits_per_byte']:.3f} after")
        return result

    def case(self, case):
        model, keep, draw, domain = case
        key = {"parent": self.stamp(model), "steps": self.args.tune_steps, "lr": self.args.tune_lr,
               "items": self.args.items, "test_bytes": self.args.test_bytes, "method": METHOD, "window": self.window}
        return self.once(f"tuned-{model}-{keep}-{draw}-{domain}", key, lambda: self.measure_case(case, key))

    def measure_all(self):
        keeps, args = [self.routed, *self.keeps], self.args
        os.makedirs(self.path("tuned"), exist_ok=True)
        result = {"domains": self.domains, "tuned_domains": self.tuned, "routed": self.routed, "shared": self.shared,
                  "keeps": keeps, "draws": args.draws, "method": METHOD, "models": {},
                  "tuning": {"steps": args.tune_steps, "lr": args.tune_lr, "row": self.window}}
        for model in MODELS:
            self.say(f"measuring and tuning the {model} model")
            documents = self.once(f"documents-{model}", [self.stamp(model), args.test_bytes],
                                  lambda m=model: self.by_domain(m))
            cases = [(model, keep, draw, domain) for keep in keeps for draw in range(1, args.draws + 1)
                     for domain in self.tuned]
            result["models"][model] = {"documents": documents, "cases": self.each(self.case, cases)}
        return result


def main():
    parser = options(__doc__)
    model_options(parser)
    parser.add_argument("--domains")
    parser.add_argument("--tune-steps", type=int, default=100)
    parser.add_argument("--tune-lr", type=float, default=1e-3)
    parser.add_argument("--items", type=int)
    args = parser.parse_args()

    run = Tuning(args.emo, args.out, args.corpus, args.jobs, **given_models(args))
    run.prepare(args)
    tokens = {model: run.train(model, ("--tokens", args.tokens or 8_500_000), seed=args.seed, window=args.window)
              for model in MODELS}
    result = run.measure_all()
    result["tokens"] = tokens
    run.write(result)

    first, second, holds = finetune_verdict(result, run.routed // 4)
    print(f"Held-out items of {len(run.tuned)} domain{'s' if len(run.tuned) > 1 else ''}, subsets by {METHOD} selection "
          f"from one validation document ({args.draws} draw{'s' if args.draws > 1 else ''}), before and after "
          f"{args.tune_steps} steps on pairs of the training split; the shared expert always stays\n")
    print("Bits per byte of the right answers; growth against the same model with all its experts at the same stage\n")
    print(align(finetune_rows(result, "bits_per_byte")))
    print(f"\nAccuracy, {CHOICES} choices; difference in points\n")
    print(align(finetune_rows(result, "accuracy")))
    print("\nTuned experts put back into their parent, all experts in use: bits per byte against the parent's\n")
    print(align(merged_rows(result)))
    print(f"\n{first}\n{second}\n\nNumbers: {run.path('results.json')}")
    return 0 if holds else 3


if __name__ == "__main__":
    run_main("finetune_table", main)
