#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of scripts/baselines.sh: models of a subset's size next to the subsets."""

import json
import shutil

from experiment import MODELS, TITLES, Experiment, Failed, given_models, model_options, options, run_main
from report import align, average, baseline_rows, baseline_verdict

METHOD = "layerwise"
VALUE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}
# What a dense model of the reference has of a mixture's configuration.
DENSE_KEYS = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
              "rms_norm_eps", "rope_theta", "max_position_embeddings", "attention_bias", "tie_word_embeddings",
              "initializer_range", "vocab_size", "eos_token_id", "pad_token_id"]


def small_config(config, keep):
    """The same model with `keep` routed experts, and no more chosen than there are."""
    experts = keep + (config.get("num_shared_experts") or 0)
    return dict(config, num_experts=experts, num_experts_per_tok=min(config["num_experts_per_tok"], experts))


def dense_config(config):
    """The same model with one feed-forward block as wide as the experts a token uses."""
    dense = {key: config[key] for key in DENSE_KEYS if config.get(key) is not None}
    return {"architectures": ["Olmo2NoQKNormPrenormForCausalLM"], "model_type": "olmo2_noqknorm_prenorm", **dense,
            "intermediate_size": config["intermediate_size"] * config["num_experts_per_tok"]}


class Baselines(Experiment):
    def size(self, model):
        """Parameters, those a token uses, and the bytes of the weights."""
        info = json.loads(self.run("info", self.folder(model), "--json"))
        return {"parameters": info["parameters"], "active": info["active"],
                "bytes": info["parameters"] * VALUE_BYTES[info["dtype"]]}

    def subset_size(self, model, keep):
        """Those of the model that a subset is when it is written by itself."""
        out = f"{model}-{keep}-pruned"
        shutil.rmtree(self.path(out), ignore_errors=True)
        self.run("prune", "--model", self.folder(model), "--mask", self.mask(model, METHOD, keep, 1, self.domains[0]),
                 "--out", self.path(out))
        size = self.size(out)
        shutil.rmtree(self.path(out))
        return size

    def full_row(self, model, experts, limit):
        self.say(f"measuring the {TITLES[model]}")
        by_domain = self.once(f"documents-{model}", [self.stamp(model), limit], lambda: self.by_domain(model))
        return {"model": model, "subset": None, "experts": experts, **self.size(model), "by_domain": by_domain}

    def subset_row(self, model, keep, draws, limit):
        def measure():
            cases = [(model, METHOD, keep, draw, domain) for draw in range(1, draws + 1) for domain in self.domains]
            values = self.each(self.subset, cases)
            return {domain: sum(values[i::len(self.domains)]) / draws for i, domain in enumerate(self.domains)}
        self.say(f"measuring the {TITLES[model]}, {keep} of {self.routed} routed experts")
        by_domain = self.once(f"subset-{model}-{keep}", [self.stamp(model), limit, draws], measure)
        return {"model": model, "subset": keep, "experts": keep + self.shared, **self.subset_size(model, keep),
                "by_domain": by_domain}


def length(run, args):
    """The tokens every model is trained on."""
    if not run.folders:
        return args.tokens or 8_500_000
    tokens = {run.train(model, ()) for model in MODELS} - {None}
    if len(tokens) > 1:
        raise Failed(f"the given models were trained on {' and '.join(map(str, sorted(tokens)))} tokens")
    if args.tokens and tokens and tokens != {args.tokens}:
        raise Failed(f"the given models were trained on {tokens.pop()} tokens, which --tokens cannot change")
    if not args.tokens and not tokens:
        raise Failed("the given models do not say how long they were trained: give --tokens")
    return args.tokens or tokens.pop()


def main():
    parser = options(__doc__)
    model_options(parser)
    args = parser.parse_args()

    run = Baselines(args.emo, args.out, args.corpus, args.jobs, **given_models(args))
    run.split_by_domain("valid")
    run.split_by_domain("test", args.test_bytes)
    run.tokenizer()
    tokens, keep = length(run, args), run.routed // 4
    run.write_config("small", small_config(run.config, keep))
    run.write_config("dense", dense_config(run.config))
    for model, config in (("emo", "config"), ("standard", "config"), ("small", "small"), ("dense", "dense")):
        run.train(model, ("--tokens", tokens), seed=args.seed, window=args.window, config=config)

    limit = args.test_bytes
    rows = [run.full_row("dense", 0, limit), run.full_row("small", keep + run.shared, limit)]
    for model in MODELS:
        rows += [run.subset_row(model, k, args.draws, limit) for k in sorted(run.keeps)]
        rows.append(run.full_row(model, run.routed + run.shared, limit))
    for row in rows:
        row["bits_per_byte"] = average(row["by_domain"])
    result = {"domains": run.domains, "routed": run.routed, "shared": run.shared, "tokens": tokens, "draws": args.draws,
              "method": METHOD, "rows": rows}
    run.write(result)

    sentence, holds = baseline_verdict(result, keep)
    print(f"Bits per byte on the test split, mean of {len(run.domains)} domains, {tokens} tokens of training each; subsets "
          f"by {METHOD} selection from one validation document a domain ({args.draws} draw"
          f"{'s' if args.draws > 1 else ''}); experts a layer with the shared ones, weights held in memory\n")
    print(align(baseline_rows(result)))
    print(f"\n{sentence}\n\nNumbers: {run.path('results.json')}")
    return 0 if holds else 3


if __name__ == "__main__":
    run_main("baselines", main)
