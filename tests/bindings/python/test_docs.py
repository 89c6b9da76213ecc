# SPDX-License-Identifier: Apache-2.0
"""Every block of docs/python.md runs, in order; so do the README's and the examples."""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import emo

EXAMPLES = "examples/python"


@pytest.fixture
def folder(tmp_path, texts, monkeypatch):
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": t, "domain": d}) + "\n" for t, d in texts))
    (tmp_path / "note.txt").write_text(texts[0][0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(path):
    """(line, code) of every block in Python."""
    text = path.read_text(encoding="utf-8")
    found = [(text.count("\n", 0, m.start(1)), m.group(1)) for m in re.finditer(r"^```python\n(.*?)^```$", text, re.S | re.M)]
    assert text.count("```python") == len(found)
    return found


def test_the_page_on_python(source, tmp_path, monkeypatch, capsys):
    folder = tmp_path  # empty: the page makes all it needs
    monkeypatch.chdir(folder)
    page = source / "docs" / "python.md"
    names = {}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    assert len(blocks(page)) >= 12
    assert (folder / "nano" / "model.safetensors").exists() and (folder / "health-6" / "config.json").exists()
    assert "nowhere" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "bindings/python/README.md"])
def test_the_readmes(source, folder, trained, data, capsys, page):
    trained.save("model")
    trained.select(data, keep=4).save("health.json")
    page = source / page
    (line, code), = blocks(page)
    exec(compile("\n" * line + code, str(page), "exec"), {})
    assert capsys.readouterr().out


def run(source, name, *arguments):
    env = dict(os.environ, PYTHONPATH=str(pathlib.Path(emo.__file__).parent.parent))
    return subprocess.run([sys.executable, "-W", "error", str(source / EXAMPLES / name), *map(str, arguments)],
                          capture_output=True, text=True, env=env, timeout=120)


def test_the_examples(source, folder, texts):
    trained = run(source, "train_tiny.py", "nano", "corpus.jsonl", "--steps", 20)
    assert trained.returncode == 0 and "step 20 of 20" in trained.stdout, trained.stderr
    again = run(source, "train_tiny.py", "nano", "corpus.jsonl", "--steps", 20)  # there is nothing left to do
    assert again.returncode == 0 and "step 10" not in again.stdout, again.stderr
    masks = run(source, "mask_by_domain.py", "nano", "corpus.jsonl", 5)
    assert masks.returncode == 0 and masks.stdout.count("river") == 2 and (folder / "kitchen.json").exists(), masks.stderr
    for mask in ([], ["river.json"]):
        spoken = run(source, "load_and_generate.py", "nano", "river bridge", *mask)
        assert spoken.returncode == 0 and spoken.stdout.startswith("river bridge "), spoken.stderr
        loaded, whole = re.search(r"(\d+) of (\d+)", spoken.stderr).groups()
        assert (int(loaded) < int(whole)) == bool(mask)
    assert "NotFound" in run(source, "load_and_generate.py", "absent", "x").stderr


def test_the_router_example(source):
    done = run(source, "router_only.py")
    assert done.returncode == 0 and "step 199" in done.stdout, done.stderr


def test_every_example_is_short_and_run(source):
    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    files = sorted((source / EXAMPLES).glob("*.py"))
    assert len(files) >= 4
    for path in files:
        assert path.name in text, "no test runs %s" % path
        assert len(path.read_text(encoding="utf-8").splitlines()) < 150
