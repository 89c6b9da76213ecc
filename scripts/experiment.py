# SPDX-License-Identifier: Apache-2.0
"""Drives the emo program: an EMO and a standard MoE of one shape, expert subsets per domain, their bits per byte.

scripts/quickstart.sh and scripts/modularity.sh stand on this; scripts/report.py prints what comes out.
"""

import concurrent.futures
import glob
import gzip
import json
import os
import subprocess
import sys
import time

ROUTED, SHARED, LAYERS = 32, 1, 4
SHAPE = {"architectures": ["EmoForCausalLM"], "model_type": "emo", "hidden_size": 128, "num_hidden_layers": LAYERS,
         "num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": ROUTED + SHARED,
         "num_shared_experts": SHARED, "num_experts_per_tok": 3 + SHARED, "intermediate_size": 64,
         "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 1024,
         "norm_topk_prob": False, "tie_word_embeddings": False, "initializer_range": 0.02,
         "router_aux_loss_coef": 0.1}
VOCABULARY = 2048
ROW, BATCH = 256, 12
MODELS = {"emo": "uniform:4:32", "standard": "none"}
TITLES = {"emo": "EMO", "standard": "standard MoE"}


class Failed(Exception):
    pass


class Experiment:
    """One output folder: tokenizer.json, config.json, a folder for each model, masks/, results.json."""

    def __init__(self, emo, out, corpus, jobs=None):
        self.emo, self.out, self.corpus, self.started = emo, out, corpus, time.monotonic()
        self.jobs = jobs or os.cpu_count() or 1
        self.domains, self.splits = [], {}
        os.makedirs(os.path.join(out, "masks"), exist_ok=True)

    def path(self, *names):
        return os.path.join(self.out, *names)

    def say(self, text):
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", file=sys.stderr, flush=True)

    def run(self, *args):
        """Runs a command of emo to its end; its standard output."""
        run = subprocess.run([self.emo, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, check=False)
        if run.returncode != 0:
            raise Failed(f"emo {' '.join(map(str, args))}: exit status {run.returncode}\n"
                         + run.stderr.decode("utf-8", "replace")[-2000:])
        return run.stdout.decode("utf-8", "replace")

    def each(self, function, items):
        """function(item) for all items, several processes at a time, each with one thread; results in order."""
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(function, items))

    # -- preparation

    def file_of(self, split):
        for ending in (".jsonl", ".jsonl.gz"):
            path = os.path.join(self.corpus, split + ending)
            if os.path.exists(path):
                return path
        raise Failed(f"{self.corpus} has no {split}.jsonl or {split}.jsonl.gz")

    def split_by_domain(self, split, limit=None):
        """One file per domain (at most `limit` bytes of text each, whole documents) and one with all of them."""
        os.makedirs(self.path(split), exist_ok=True)
        path, lines, sizes = self.file_of(split), {}, {}
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                document = json.loads(line)
                domain, size = document["domain"], len(document["text"].encode())
                if limit is None or sizes.get(domain, 0) + size <= limit or not sizes.get(domain):
                    lines.setdefault(domain, []).append(line)
                    sizes[domain] = sizes.get(domain, 0) + size
        self.splits[split] = {}
        with open(self.path(split, "all.jsonl"), "w", encoding="utf-8") as everything:
            for domain in sorted(lines):
                self.splits[split][domain] = self.path(split, domain + ".jsonl")
                with open(self.splits[split][domain], "w", encoding="utf-8") as file:
                    file.writelines(lines[domain])
                everything.writelines(lines[domain])
        self.domains = sorted(lines)

    def tokenizer(self):
        out = self.path("tokenizer.json")
        if not os.path.exists(out):
            self.say(f"training a tokenizer of {VOCABULARY} tokens")
            self.run("tokenizer", "train", "--data", self.file_of("train"), "--vocab-size", VOCABULARY, "--out", out)
        with open(out, encoding="utf-8") as file:
            tokenizer = json.load(file)
        added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
        size = max([*tokenizer["model"]["vocab"].values(), *added.values()]) + 1
        config = dict(SHAPE, vocab_size=size)
        if "<|endoftext|>" in added:
            config["eos_token_id"] = added["<|endoftext|>"]
        with open(self.path("config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2)

    # -- training

    def train(self, model, length, seed=1, window=10, lr=4e-3, weight=0.1):
        """Trains one of MODELS; `length` is ("--tokens", N) or ("--minutes", M). A finished run is kept."""
        out = self.path(model)
        args = [self.emo, "train", "--config", self.path("config.json"), "--tokenizer", self.path("tokenizer.json"),
                "--data", self.file_of("train"), "--pool", MODELS[model], "--balance-scope", f"window:{window}",
                "--balance-weight", weight, "--z-weight", 0.001, "--lr", lr, "--schedule", "cosine", "--batch", BATCH,
                "--seq-len", ROW, "--seed", seed, *length, "--resume", "--out", out]
        self.say(f"training the {TITLES[model]} ({' '.join(map(str, length))})")
        with open(self.path(model + ".log"), "wb") as log:
            process = subprocess.Popen(list(map(str, args)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            said = time.monotonic()
            try:
                while True:
                    try:
                        code = process.wait(1)
                        break
                    except subprocess.TimeoutExpired:
                        if time.monotonic() - said > 15:
                            said = time.monotonic()
                            last = (self.metrics(model) or [None])[-1]
                            if last:
                                self.say(f"  step {last['step']} of {last.get('steps') or '?'}: loss {last['loss']:.3f}")
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code != 0:
            with open(self.path(model + ".log"), encoding="utf-8", errors="replace") as log:
                raise Failed(f"emo train: exit status {code}\n{log.read()[-2000:]}")
        metrics = self.metrics(model)
        if not metrics:
            raise Failed(f"{out}: the run wrote no metrics")
        self.say(f"  {metrics[-1]['tokens']} tokens, last loss {metrics[-1]['loss']:.3f}")
        return metrics[-1]["tokens"]

    def metrics(self, model):
        """The steps of a run, from its JSON Lines; lines of other kinds are left out."""
        files = sorted(glob.glob(self.path(model, "**", "*metrics*.jsonl"), recursive=True), key=os.path.getmtime)
        steps = {}
        for path in files:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    try:
                        row = json.loads(line)
                    except json.JSONDecodeError:
                        continue  # the line being written
                    if "loss" in row and "step" in row and "tokens" in row:
                        steps[row["step"]] = row
        return [steps[step] for step in sorted(steps)]

    # -- measuring

    def evaluate(self, model, *args, data, threads=0):
        out = self.run("eval", "--model", self.path(model), "--data", data, "--json", *args,
                       *(("--threads", threads) if threads else ()))
        return json.loads(out)

    def by_domain(self, model, *args, threads=0):
        """Bits per byte of every domain of the test split."""
        result = self.evaluate(model, "--by", "domain", *args, data=self.path("test", "all.jsonl"), threads=threads)
        domains = result["domains"]
        if isinstance(domains, list):
            domains = {row.get("domain", row.get("name")): row for row in domains}
        return {domain: domains[domain]["bits_per_byte"] for domain in self.domains}

    def mask(self, model, method, keep, seed, domain):
        """The mask of `keep` routed experts that a method picks from one validation document."""
        out = self.path("masks", f"{model}-{method}-{keep}-{seed}-{domain or 'all'}.json")
        self.run("select", "--model", self.path(model), "--calibration",
                 self.splits["valid"][domain or self.domains[0]], "--examples", 1, "--seed", seed,
                 "--keep", keep + SHARED, "--method", method, "--context", ROW, "--threads", 1, "--out", out)
        return out

    def subset(self, case):
        model, method, keep, seed, domain = case
        mask = self.mask(model, method, keep, seed, domain)
        result = self.evaluate(model, "--mask", mask, data=self.splits["test"][domain], threads=1)
        return result["bits_per_byte"]

    def random(self, case):
        model, keep, seed = case
        return self.by_domain(model, "--mask", self.mask(model, "random", keep, seed, None), threads=1)

    def measure(self, keeps, methods, seeds, pools=()):
        """Everything: {"domains", "keeps", "methods", "models": {model: {"full", "subsets", "pools"}}}; values are
        bits per byte by domain, subsets' mean over the draws."""
        result = {"domains": self.domains, "routed": ROUTED, "shared": SHARED, "keeps": keeps,
                  "methods": [*methods, "random"], "draws": len(seeds), "models": {}}
        for model in MODELS:
            self.say(f"measuring the {TITLES[model]}: full model")
            entry = {"full": self.by_domain(model), "subsets": {}, "pools": {}}
            for method in methods:
                self.say(f"  subsets by {method}, from one document")
                cases = [(model, method, keep, seed, domain) for keep in keeps for seed in seeds
                         for domain in self.domains]
                values = iter(self.each(self.subset, cases))
                entry["subsets"][method] = {}
                for keep in keeps:
                    draws = [[next(values) for _ in self.domains] for _ in seeds]
                    entry["subsets"][method][str(keep)] = {
                        domain: sum(draw[i] for draw in draws) / len(draws) for i, domain in enumerate(self.domains)}
                    entry.setdefault("draws", {}).setdefault(method, {})[str(keep)] = [
                        dict(zip(self.domains, draw)) for draw in draws]
            self.say("  random subsets")
            cases = [(model, keep, seed) for keep in keeps for seed in seeds]
            values = iter(self.each(self.random, cases))
            entry["subsets"]["random"] = {}
            for keep in keeps:
                draws = [next(values) for _ in seeds]
                entry["subsets"]["random"][str(keep)] = {
                    domain: sum(draw[domain] for draw in draws) / len(draws) for domain in self.domains}
                entry.setdefault("draws", {}).setdefault("random", {})[str(keep)] = draws
            for pool in pools:
                self.say(f"  full model, a pool of {pool} chosen from each document")
                entry["pools"][str(pool)] = self.by_domain(model, "--eval-pool", pool)
            result["models"][model] = entry
        return result

    def generate(self, model, domain, method, keep, tokens=80):
        """A passage in a domain's manner, from its subset: {"domain", "prompt", "text"}."""
        with open(self.splits["test"][domain], encoding="utf-8") as file:
            prompt = " ".join(json.loads(file.readline())["text"].split()[:12])
        mask = self.path("masks", f"{model}-{method}-{keep}-1-{domain}.json")
        text = self.run("generate", "--model", self.path(model), "--mask", mask, "--prompt", prompt, "--tokens", tokens,
                        "--temperature", 0.8, "--top-p", 0.95, "--seed", 1)
        text = text.strip()
        return {"domain": domain, "prompt": prompt, "text": text[len(prompt):] if text.startswith(prompt) else text}

    def write(self, result, name="results.json"):
        with open(self.path(name), "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, ensure_ascii=False)
            file.write("\n")
