# SPDX-License-Identifier: Apache-2.0
import gzip
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = sys.argv.pop(1)
sys.path.insert(0, SCRIPTS)
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


if __name__ == "__main__":
    unittest.main()
