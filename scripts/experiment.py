# SPDX-License-Identifier: Apache-2.0
"""Drives the emo program: an EMO and a standard MoE of one shape, expert subsets per domain, their bits per byte.

scripts/quickstart.sh, modularity.sh, finetune_table.sh and baselines.sh stand on this; report.py prints what comes out.
"""

import argparse
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
MODELS = ["emo", "standard"]
TITLES = {"emo": "EMO", "standard": "standard MoE", "small": "small MoE", "dense": "dense model"}


class Failed(Exception):
    pass


def options(description):
    """The options of every experiment on a labelled corpus."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--emo", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--jobs", type=int)
    return parser


def model_options(parser):
    """Those of the experiments that can take models which are trained already."""
    parser.add_argument("--emo-model")
    parser.add_argument("--standard-model")
    parser.add_argument("--config", help="the shape of models that are trained here, instead of the usual one")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--test-bytes", type=int)


def given_models(args):
    """What Experiment takes from model_options()."""
    if bool(args.emo_model) != bool(args.standard_model):
        raise Failed("--emo-model and --standard-model go together: both, or none and both are trained here")
    shape = None
    if args.config:
        with open(args.config, encoding="utf-8") as file:
            shape = json.load(file)
    folders = {"emo": args.emo_model, "standard": args.standard_model} if args.emo_model else {}
    return {"folders": folders, "shape": shape}


def run_main(name, main):
    """Ends the program with main()'s exit status; 1 when it failed, 130 when it was interrupted."""
    try:
        sys.exit(main())
    except (Failed, OSError) as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class Experiment:
    """One output folder: tokenizer.json, config.json, a folder for each model, masks/, results.json.

    `folders` has models that were trained elsewhere, which are read only; `shape` is the config.json of new ones.
    """

    def __init__(self, emo, out, corpus, jobs=None, folders=None, shape=None):
        self.emo, self.out, self.corpus, self.started = emo, out, corpus, time.monotonic()
        self.jobs = jobs or os.cpu_count() or 1
        self.domains, self.splits, self.stopped = [], {}, False
        self.folders = {name: os.path.abspath(folder) for name, folder in (folders or {}).items()}
        self.config = shape or SHAPE
        self.read_config()
        os.makedirs(os.path.join(out, "masks"), exist_ok=True)

    def path(self, *names):
        return os.path.join(self.out, *names)

    def folder(self, model):
        """Of a model by its name, or by its path in the output folder."""
        return self.folders.get(model) or self.path(model)

    def read_config(self):
        config = self.config
        self.shared = config.get("num_shared_experts") or 0
        self.routed = config["num_experts"] - self.shared
        self.chosen = config["num_experts_per_tok"] - self.shared
        self.row = config.get("emo_train_seq_len") or ROW
        self.keeps = [self.routed // 2, self.routed // 4, self.routed // 8]
        if config.get("num_experts_per_layer") or self.keeps[-1] < 1:
            raise Failed("the models must have the same number of experts in every layer, eight routed ones or more")

    def pool(self, model):
        """The pools a model is trained with: the EMO's down to the smallest subset that is measured."""
        return f"uniform:{max(self.chosen, self.keeps[-1])}:{self.routed}" if model == "emo" else "none"

    def say(self, text):
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", file=sys.stderr, flush=True)

    def run(self, *args):
        """Runs a command of emo to its end; its standard output."""
        if self.stopped:
            raise Failed("stopped")
        run = subprocess.run([self.emo, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, check=False)
        if run.returncode != 0:
            raise Failed(f"emo {' '.join(map(str, args))}: exit status {run.returncode}\n"
                         + run.stderr.decode("utf-8", "replace")[-2000:])
        return run.stdout.decode("utf-8", "replace")

    def each(self, function, items):
        """function(item) for all items, several processes at a time, each with one thread; results in order."""
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                self.stopped = True  # what runs ends, and nothing new begins
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def once(self, name, key, function):
        """function(), or what it returned when it was called before with the same key (which JSON must keep)."""
        path, key = self.path("done", name + ".json"), json.loads(json.dumps(key))
        try:
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            if kept["key"] == key:
                return kept["value"]
        except (FileNotFoundError, json.JSONDecodeError):
            pass
        value = function()
        os.makedirs(self.path("done"), exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"key": key, "value": value}, file)
        os.replace(path + ".new", path)
        return value

    def stamp(self, model):
        """What tells a model from another that was put in its place."""
        path = os.path.join(self.folder(model), "model.safetensors")
        try:
            state = os.stat(path)
        except FileNotFoundError:
            raise Failed(f"{self.folder(model)} has no model.safetensors") from None
        return [self.folder(model), state.st_size, state.st_mtime_ns]

    # -- preparation

    def has(self, split):
        paths = [os.path.join(self.corpus, split + ending) for ending in (".jsonl", ".jsonl.gz")]
        return next((path for path in paths if os.path.exists(path)), None)

    def file_of(self, split):
        path = self.has(split)
        if path:
            return path
        raise Failed(f"{self.corpus} has no {split}.jsonl or {split}.jsonl.gz")

    def lines(self, split):
        """(line, object) of each line of a split."""
        path = self.file_of(split)
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield line, json.loads(line)

    def split_by_domain(self, split, limit=None):
        """One file per domain (at most `limit` bytes of text each, whole documents) and one with all of them."""
        os.makedirs(self.path(split), exist_ok=True)
        lines, sizes = {}, {}
        for line, document in self.lines(split):
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
        """tokenizer.json and config.json, those of the given models where there are any."""
        out, words = self.path("tokenizer.json"), self.config.get("vocab_size") or VOCABULARY
        if self.folders:
            self.take_given(out)
        elif not os.path.exists(out):
            self.say(f"training a tokenizer of {words} tokens")
            self.run("tokenizer", "train", "--data", self.file_of("train"), "--vocab-size", words, "--out", out)
        with open(out, encoding="utf-8") as file:
            tokenizer = json.load(file)
        added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
        size = max([*tokenizer["model"]["vocab"].values(), *added.values()]) + 1
        self.config = dict(self.config, vocab_size=max(size, self.config.get("vocab_size") or 0))
        if "<|endoftext|>" in added:
            self.config["eos_token_id"] = added["<|endoftext|>"]
        self.write_config("config", self.config)

    def take_given(self, tokenizer):
        """Configuration and tokenizer of models from elsewhere, which must agree in both."""
        texts, configs = [], []
        for folder in self.folders.values():
            try:
                with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
                    texts.append(file.read())
                with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
                    configs.append(json.load(file))
            except FileNotFoundError as missing:
                raise Failed(f"{missing.filename} is missing") from None
        for key in SHAPE:
            if len({json.dumps(config.get(key)) for config in configs}) > 1:
                raise Failed(f"the given models differ in {key}")
        if len(set(texts)) > 1:
            raise Failed("the given models have different tokenizers")
        with open(tokenizer, "w", encoding="utf-8") as file:
            file.write(texts[0])
        self.config = configs[0]
        self.read_config()

    def write_config(self, name, config):
        with open(self.path(name + ".json"), "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2)

    # -- training

    def train(self, model, length, seed=1, window=10, lr=4e-3, weight=0.1, config="config"):
        """Trains a model of TITLES; `length` is ("--tokens", N) or ("--minutes", M). A finished run is kept, and a
        model from elsewhere as it is. Returns the tokens it was trained on."""
        if model in self.folders:
            metrics = self.metrics(model)
            return metrics[-1]["tokens"] if metrics else None
        out = self.path(model)
        args = [self.emo, "train", "--config", self.path(config + ".json"), "--tokenizer", self.path("tokenizer.json"),
                "--data", self.file_of("train"), "--pool", self.pool(model), "--balance-scope", f"window:{window}",
                "--balance-weight", weight, "--z-weight", 0.001, "--lr", lr, "--schedule", "cosine", "--batch", BATCH,
                "--seq-len", self.row, "--seed", seed, *length, "--resume", "--out", out]
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
        files = sorted(glob.glob(os.path.join(self.folder(model), "**", "*metrics*.jsonl"), recursive=True),
                       key=os.path.getmtime)
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

    def evaluate(self, model, *args, data, threads=0, context=0):
        out = self.run("eval", "--model", self.folder(model), "--data", data, "--context", context or self.row,
                       "--json", *args, *(("--threads", threads) if threads else ()))
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
        self.run("select", "--model", self.folder(model), "--calibration",
                 self.splits["valid"][domain or self.domains[0]], "--examples", 1, "--seed", seed,
                 "--keep", keep + self.shared, "--method", method, "--context", self.row, "--threads", 1, "--out", out)
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
        result = {"domains": self.domains, "routed": self.routed, "shared": self.shared, "keeps": keeps,
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
        text = self.run("generate", "--model", self.folder(model), "--mask", mask, "--prompt", prompt, "--tokens", tokens,
                        "--temperature", 0.8, "--top-p", 0.95, "--seed", 1)
        text = text.strip()
        return {"domain": domain, "prompt": prompt, "text": text[len(prompt):] if text.startswith(prompt) else text}

    def write(self, result, name="results.json"):
        with open(self.path(name), "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, ensure_ascii=False)
            file.write("\n")
