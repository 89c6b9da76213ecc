# SPDX-License-Identifier: Apache-2.0
import gzip
import hashlib
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SCRIPTS, EMO = os.path.abspath(sys.argv.pop(1)), os.path.abspath(sys.argv.pop(1))
sys.path.insert(0, SCRIPTS)
import baselines  # noqa: E402
import experiment  # noqa: E402
import finetune_table  # noqa: E402
import gather_documents  # noqa: E402
import plain_text  # noqa: E402
import report  # noqa: E402


class Text(unittest.TestCase):
    def test_html(self):
        page = "<html><head><title>t</title></head><body><div class='nav x'>away</div><p>One\n two &amp; three<br>four" \
               "</p><script>no()</script><pre>a\n  b</pre></body></html>"
        self.assertEqual(gather_documents.clean(plain_text.from_html(page, {"nav"})),
                         "One two & three\nfour\n\na\n  b")

    def test_man(self):
        page = '.\\" comment\n.TH X 1\n.SH NAME\nx \\- does \\fBthings\\fP\n.PP\nUse\n.BR x (1)\nor \\(bqy\\(cq.\n' \
               '.nf\n  int  x;\n.fi\n.de mac\nhidden\n..\nend'
        text = gather_documents.clean(plain_text.from_man(page))
        self.assertEqual(text, "NAME\n\nx - does things\n\nUse x(1) or y'.\n  int  x;\n\nend")
        self.assertEqual(plain_text.from_man(".Dd today\n.Sh NAME\nx"), "")

    def test_accents_of_old_pages(self):
        self.assertEqual(gather_documents.clean(plain_text.from_man("cr\\('eer \\[u00E0]")), "cr\u00e9er \u00e0")

    def test_pod(self):
        text = plain_text.from_pod("=head1 NAME\n\nUse B<x> and L<y|z>, C<< a->b >>, E<lt>.\n\n    code  here\n\n=cut\n\nmy $x;")
        self.assertEqual(text, "NAME\n\nUse x and y, a->b, <.\n\n    code  here")


class Gathering(unittest.TestCase):
    def words(self, seed, n):
        rng = random.Random(seed)
        return " ".join(rng.choice(["alpha", "beta", "gamma", "delta", "kappa", "sigma", "omega", "theta"]) +
                        str(rng.randrange(90)) for _ in range(n)).replace("5", "five").replace("7", "seven")

    def test_pieces(self):
        text = "\n\n".join(self.words(i, 60) for i in range(40))
        pieces = gather_documents.cut(text)
        self.assertGreater(len(pieces), 3)
        for piece in pieces:
            self.assertTrue(500 <= len(piece.encode()) <= 8000)
        self.assertEqual("\n\n".join(pieces).split()[:500], text.split()[:500])

    def test_repeats(self):
        seen, text = gather_documents.Seen(), self.words(1, 200)
        self.assertFalse(seen.repeats(text))
        self.assertTrue(seen.repeats(text + " and a little more"))
        self.assertFalse(seen.repeats(self.words(2, 200)))

    def gather(self, root, out, *options):
        return subprocess.run([sys.executable, "-B", os.path.join(SCRIPTS, "gather_documents.py"), out, "--root", root,
                               *options], capture_output=True, check=False).returncode

    def test_the_same_machine_gives_the_same_files(self):
        with tempfile.TemporaryDirectory() as folder:
            pages = os.path.join(folder, "root/usr/share/man/fr/man1")
            python = os.path.join(folder, "root/usr/lib/python3.99")
            os.makedirs(pages)
            os.makedirs(python)
            for i in range(60):
                with gzip.open(os.path.join(pages, f"p{i}.1.gz"), "wt") as file:
                    file.write(".TH P 1\n.SH NOM\n" + "\n.PP\n".join(self.words(100 * i + j, 80) for j in range(4)))
                with open(os.path.join(python, f"m{i}.py"), "w", encoding="utf-8") as file:
                    for j in range(9):
                        lines = self.words(1000 * i + j, 40).split()
                        file.write(f"def f{j}():\n" + "".join(f"    {w} = {w}\n" for w in lines) + "\n")
            root, sums = os.path.join(folder, "root"), []
            for name in ("a", "b"):
                out = os.path.join(folder, name)
                self.assertEqual(self.gather(root, out, "--domains", "2", "--smallest", "1000"), 0)
                data = b"".join(pathlib.Path(out, s + ".jsonl").read_bytes() for s in ("train", "valid", "test"))
                sums.append(hashlib.sha256(data).hexdigest())
            self.assertEqual(sums[0], sums[1])
            rows = [json.loads(line) for line in data.decode().splitlines()]
            self.assertEqual({row["domain"] for row in rows}, {"french", "python"})
            self.assertEqual(len({row["id"] for row in rows}), len(rows))
            self.assertEqual(self.gather(root, os.path.join(folder, "c"), "--domains", "3"), 3)


def result(emo, standard):
    domains = ["a", "b"]
    entry = lambda factor: {"full": dict.fromkeys(domains, 2.0), "pools": {},
                            "subsets": {m: {"8": dict.fromkeys(domains, 2.0 * factor)} for m in ("usage", "random")}}
    return {"domains": domains, "routed": 32, "shared": 1, "keeps": [8], "methods": ["usage", "random"], "draws": 1,
            "models": {"emo": entry(emo), "standard": entry(standard)}}


class Verdict(unittest.TestCase):
    def test_a_third_is_the_border(self):
        self.assertTrue(report.verdict(result(1.049, 1.15), "usage", 8)[2])
        self.assertFalse(report.verdict(result(1.051, 1.15), "usage", 8)[2])

    def test_the_sentences_say_the_numbers(self):
        first, second, _ = report.verdict(result(1.02, 1.2), "usage", 8)
        self.assertIn("+2.0 %", first)
        self.assertIn("+20.0 %", first)
        self.assertIn("2.000", second)

    def test_the_page_is_whole(self):
        metrics = {m: [{"step": i, "tokens": i * 3072, "loss": 5 + 1 / i} for i in range(1, 300)]
                   for m in ("emo", "standard")}
        page = report.page(result(1.02, 1.2), metrics, "usage", 8, [{"domain": "a", "prompt": "<p>", "text": "&"}])
        self.assertIn("&lt;p&gt;", page)
        self.assertEqual(page.count("<polyline"), 2)
        self.assertEqual(page.count("<table>"), page.count("</table>"))
        self.assertNotIn("http://", page)


class Pairs(unittest.TestCase):
    def test_they_are_the_text(self):
        text = " ".join(f"w{i}" for i in range(600)) + "\n\n" + "x" * 700 + " end"
        pairs = finetune_table.pairs(text)
        self.assertGreater(len(pairs), 4)
        at = 0
        for prompt, completion in pairs:
            self.assertLessEqual(len(prompt), finetune_table.PROMPT)
            self.assertLessEqual(len(completion), finetune_table.COMPLETION)
            self.assertGreaterEqual(len(completion), finetune_table.COMPLETION // 2)
            self.assertIn(prompt + completion, text[at:])
            at = text.index(prompt + completion, at) + len(prompt + completion)
        self.assertTrue(pairs[0][1].startswith(" w"))
        self.assertEqual(finetune_table.pairs("too short to be cut"), [])

    def test_items_have_one_right_answer_from_their_document(self):
        texts = [" ".join(f"{name}{i}" for i in range(200)) for name in "abcde"]
        items = finetune_table.make_items(texts, 1)
        self.assertEqual(items, finetune_table.make_items(texts, 1))
        self.assertGreater(len({item["answer"] for item in items}), 1)
        for item in items:
            self.assertEqual(len(item["choices"]), 4)
            own = [i for i, choice in enumerate(item["choices"]) if choice[1] == item["context"][0]]
            self.assertEqual(own, [item["answer"]])
        self.assertEqual(finetune_table.make_items(texts[:1], 1), [])


def tuned(emo, standard):
    """Cases of two domains; (growth before, growth after) of the quarter."""
    def case(keep, domain, before, after):
        value = lambda x: {"bits_per_byte": x, "accuracy": 1 / x}
        return {"keep": keep, "draw": 1, "domain": domain, "before": value(before), "after": value(after),
                "merged": {"documents": {"a": 2.2 if domain == "a" else 1.0, "b": 4.0}, **value(1.0)}}
    return {"routed": 32, "keeps": [32, 8], "models": {
        model: {"documents": {"a": 2.0, "b": 4.0},
                "cases": [case(keep, domain, 2.0 * (1 + (keep == 8) * grown[0]), 1.0 * (1 + (keep == 8) * grown[1]))
                          for keep in (32, 8) for domain in ("a", "b")]}
        for model, grown in (("emo", emo), ("standard", standard))}}


class Tables(unittest.TestCase):
    def test_fine_tuning_is_judged_before_and_after(self):
        for emo, standard, holds in (((0.01, 0.01), (0.1, 0.1), True), ((0.04, 0.01), (0.1, 0.1), False),
                                     ((0.01, 0.04), (0.1, 0.1), False)):
            first, second, got = report.finetune_verdict(tuned(emo, standard), 8)
            self.assertEqual(got, holds)
            self.assertIn(f"{100 * emo[0]:+.1f} %", first)
            self.assertIn(f"{100 * emo[1]:+.1f} %", second)

    def test_fine_tuning_rows(self):
        found = tuned((0.01, 0.02), (0.1, 0.2))
        rows = report.finetune_rows(found, "bits_per_byte")
        self.assertEqual(rows[1], ["100 %", "2.0000", "", "1.0000", "", "2.0000", "", "1.0000", ""])
        self.assertEqual(rows[2][0:5], ["25 %", "2.0200", "+1.0 %", "1.0200", "+2.0 %"])
        self.assertEqual(report.finetune_rows(found, "accuracy")[2][5:7], ["45.5 %", "-4.5"])
        merged = report.merged_rows(found)
        # of domain a: a rose by a tenth, b stayed; of domain b: b stayed, a fell by half
        self.assertEqual(merged[1], ["EMO, 100 %", "+5.0 %", "-25.0 %", "-50.0 %", "+50.0 points"])

    def test_baselines_are_judged_by_the_better_one(self):
        def row(model, subset, parameters, value):
            return {"model": model, "subset": subset, "experts": 9, "parameters": parameters, "active": 1, "bytes": 4,
                    "bits_per_byte": value}
        for small, dense, holds in ((2.1, 2.2, True), (1.9, 2.2, False), (2.1, 1.9, False)):
            found = {"routed": 32, "rows": [row("emo", None, 40, 1.9), row("emo", 8, 20, 2.0),
                                            row("small", None, 19, small), row("dense", None, 10, dense)]}
            self.assertEqual(report.baseline_verdict(found, 8)[1], holds)
            rows = report.baseline_rows(found)
            self.assertEqual([line[0] for line in rows[1:]], ["dense model", "small MoE", "EMO, 25 %", "EMO"])
            self.assertEqual(rows[4][-1], "+0.0 %")

    def test_configurations_of_the_baselines(self):
        config = dict(experiment.SHAPE, vocab_size=300, eos_token_id=5, num_experts_per_layer=None)
        small = baselines.small_config(config, 8)
        self.assertEqual((small["num_experts"], small["num_experts_per_tok"], small["num_shared_experts"]), (9, 4, 1))
        self.assertEqual(baselines.small_config(config, 2)["num_experts_per_tok"], 3)
        dense = baselines.dense_config(config)
        self.assertEqual((dense["intermediate_size"], dense["model_type"]), (4 * 64, "olmo2_noqknorm_prenorm"))
        self.assertFalse([key for key in dense if "expert" in key])


class Stopping(unittest.TestCase):
    def test_the_first_failure_ends_the_others(self):
        with tempfile.TemporaryDirectory() as folder:
            run = experiment.Experiment("true", folder, folder, jobs=2)
            self.assertEqual(run.each(lambda i: (run.run(), i)[1], [3, 1, 2]), [3, 1, 2])
            gate, later = threading.Event(), []

            def work(i):
                if i == 0:
                    raise experiment.Failed("first")
                gate.wait(60)
                later.append(i)
                run.run()
                later.append("began something new")

            watch = threading.Thread(target=lambda: (wait_until(lambda: run.stopped), gate.set()))
            watch.start()
            with self.assertRaisesRegex(experiment.Failed, "first"):
                run.each(work, range(9))
            watch.join()
            self.assertNotIn("began something new", later)
            self.assertLess(len(later), 8)


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)


class CommandLines(unittest.TestCase):
    def test_wrong_usage_is_found_before_anything_is_built(self):
        for name in ("modularity", "finetune_table", "baselines"):
            for code, args in ((0, ["--help"]), (2, []), (2, ["/nowhere"]), (2, [".", "--tokens"]),
                               (2, [".", "--such", "1"]), (2, [".", "extra"])):
                run = subprocess.run(["bash", os.path.join(SCRIPTS, name + ".sh"), *args], capture_output=True,
                                     check=False, text=True)
                self.assertEqual(run.returncode, code, (name, args))
                self.assertIn(f"usage: scripts/{name}.sh", run.stdout if code == 0 else run.stderr)


@unittest.skipUnless(os.access(EMO, os.X_OK), "the emo program was not built")
class Smoke(unittest.TestCase):
    """Both tables from models of a few steps: every command of emo that they use, and going on."""

    CONFIG = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 2, "num_experts": 17, "num_shared_experts": 1, "num_experts_per_tok": 3,
              "max_position_embeddings": 512, "vocab_size": 300, "emo_train_seq_len": 64}

    def corpus(self, folder, mc):
        words = {d: [d + "".join(w) for w in itertools.product("aeiou", "lmnr", "aeo")] for d in ("law", "sea")}
        rng = random.Random(3)
        for split, count in (("train", 20), ("valid", 3), ("test", 6)):
            with open(os.path.join(folder, split + ".jsonl"), "w", encoding="utf-8") as file:
                for i in range(2 * count):
                    domain = ("law", "sea")[i % 2]
                    text = " ".join(rng.choice(words[domain]) for _ in range(90))
                    file.write(json.dumps({"domain": domain, "text": text}) + "\n")
        if mc:
            with open(os.path.join(folder, "mc.jsonl"), "w", encoding="utf-8") as file:
                for i in range(6):
                    file.write(json.dumps({"domain": ("law", "sea")[i % 2], "kind": "random", "context": "lawala seamo",
                                           "choices": [" lawara", " seamo", " x", " y"], "answer": i % 4}) + "\n")
        with open(os.path.join(folder, "shape.json"), "w", encoding="utf-8") as file:
            json.dump(self.CONFIG, file)

    def table(self, name, folder, out, *args):
        run = subprocess.run([sys.executable, "-B", os.path.join(SCRIPTS, name + ".py"), "--emo", EMO, "--corpus", folder,
                              "--out", out, *args], capture_output=True, check=False, text=True)
        if run.returncode not in (0, 3):  # whether so short a training shows anything is not the question here
            self.fail(f"{name}: exit status {run.returncode}\n{run.stderr}")
        with open(os.path.join(out, "results.json"), encoding="utf-8") as file:
            return run, json.load(file)

    def test_both_tables(self):
        with tempfile.TemporaryDirectory() as folder:
            self.corpus(folder, False)
            first, second = os.path.join(folder, "first"), os.path.join(folder, "second")
            shape = ["--config", os.path.join(folder, "shape.json"), "--tokens", "4000"]
            run, result = self.table("baselines", folder, first, *shape)
            size = {(row["model"], row["subset"]): row for row in result["rows"]}
            self.assertEqual(len(size), 10)
            self.assertEqual(size["emo", 4]["parameters"], size["small", None]["parameters"])
            routers = 2 * 17 * 16  # the dense model has none, and is otherwise as large as what a token uses
            self.assertLessEqual(abs(size["emo", None]["active"] - size["dense", None]["parameters"]), routers)
            self.assertEqual(size["small", None]["bytes"], 4 * size["small", None]["parameters"])
            self.assertLess(size["dense", None]["bytes"], size["emo", 4]["bytes"])
            self.assertIn("dense model", run.stdout)
            self.assertEqual(run.returncode, 0 if report.baseline_verdict(result, 4)[1] else 3)

            given = [f"--{name}-model={os.path.join(first, name)}" for name in ("emo", "standard")]
            before = {name: os.stat(os.path.join(first, name, "model.safetensors")).st_mtime_ns for name in
                      ("emo", "standard")}
            tune = ["--tune-steps", "2", "--domains", "sea", "--items", "4"]
            run, result = self.table("finetune_table", folder, second, *given, *tune)
            self.assertEqual(result["keeps"], [16, 8, 4, 2])
            self.assertEqual(list(result["tokens"].values()), [4608, 4608])
            for entry in result["models"].values():
                self.assertEqual([case["keep"] for case in entry["cases"]], [16, 8, 4, 2])
                for case in entry["cases"]:
                    self.assertEqual(case["before"]["items"], 4)
                    self.assertNotEqual(case["before"]["loss"], case["after"]["loss"])
                    self.assertEqual(set(case["merged"]["documents"]), {"law", "sea"})
                # with all experts there is nothing to merge: the tuned model is measured twice
                self.assertEqual(entry["cases"][0]["after"]["loss"], entry["cases"][0]["merged"]["loss"])
            self.assertEqual(os.listdir(os.path.join(second, "tuned")), [])
            again, same = self.table("finetune_table", folder, second, *given, *tune)
            self.assertEqual(again.stdout, run.stdout)
            self.assertEqual(same, result)
            self.assertNotIn("before,", again.stderr)  # nothing was tuned anew
            for name, moment in before.items():
                self.assertEqual(os.stat(os.path.join(first, name, "model.safetensors")).st_mtime_ns, moment)

    def test_what_cannot_be(self):
        with tempfile.TemporaryDirectory() as folder:
            self.corpus(folder, True)
            for name, words, args in (
                    ("finetune_table", "go together", ["--emo-model", folder]),
                    ("finetune_table", "tokenizer.json is missing",
                     ["--emo-model", folder, "--standard-model", folder]),
                    ("baselines", "No such file", ["--config", folder + "/none"])):
                run = subprocess.run([sys.executable, "-B", os.path.join(SCRIPTS, name + ".py"), "--emo", EMO, "--corpus",
                                      folder, "--out", os.path.join(folder, "out"), *args], capture_output=True,
                                     check=False, text=True)
                self.assertEqual((run.returncode, words in run.stderr), (1, True), run.stderr)


if __name__ == "__main__":
    unittest.main()
