# SPDX-License-Identifier: Apache-2.0
"""The package and the emo program give the same ids, losses, masks and texts."""
import json
import re
import subprocess

import pytest

import emo
from conftest import CONFIG


@pytest.fixture(scope="module")
def run(program):
    def call(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def folder(run, texts, tmp_path_factory):
    """A run of the program: documents, tokenizer, and a model trained for ten steps."""
    path = tmp_path_factory.mktemp("program")
    (path / "docs.jsonl").write_text("".join(json.dumps({"text": t, "domain": d}) + "\n" for t, d in texts))
    (path / "config.json").write_text(json.dumps(CONFIG))
    run("tokenizer", "train", "--data", path / "docs.jsonl", "--vocab-size", 280, "--out", path / "tok.json")
    run("train", "--config", path / "config.json", "--tokenizer", path / "tok.json", "--data", path / "docs.jsonl",
        "--pool", "uniform:2:8", "--batch", 4, "--seq-len", 32, "--steps", 10, "--seed", 3, "--threads", 1,
        "--out", path / "run", "--quiet")
    return path


def test_tokenizer(folder, texts):
    mine = emo.Tokenizer.train(emo.Texts(folder / "docs.jsonl"), vocab_size=280)
    theirs = emo.Tokenizer(folder / "tok.json")
    assert mine.to_json() == theirs.to_json() and mine.hash == theirs.hash
    assert mine.encode(texts[0][0]) == theirs.encode(texts[0][0])


def test_training(folder):
    tokenizer = emo.Tokenizer(folder / "tok.json")
    data = emo.Dataset(folder / "docs.jsonl", tokenizer)
    config = emo.load(folder / "run").config
    options = dict(pool="uniform:2:8", batch_rows=4, seq_len=32, max_steps=10, seed=3)
    model = emo.Model(config, tokenizer=tokenizer, seed=3)
    with model.train(data, **options) as trainer:
        mine = [(s.step, s.loss, s.grad_norm, s.balance_loss) for s in trainer]
    theirs = [(m["step"], m["loss"], m["grad_norm"], m["balance_loss"]) for m in emo.Run(folder / "run").metrics()]
    assert len(theirs) == 10
    for a, b in zip(mine, theirs):
        assert a == pytest.approx(b, rel=1e-7)  # metrics.jsonl has nine digits or so


def test_selection(folder, run, texts):
    (folder / "note.txt").write_text(texts[0][0])
    run("select", "--model", folder / "run", "--calibration", folder / "note.txt", "--keep", 4, "--method", "layerwise",
        "--out", folder / "mask.json")
    model = emo.load(folder / "run")
    assert model.select(texts[0][0], keep=4, method="layerwise") == emo.Mask.load(folder / "mask.json")


def test_evaluation(folder, run):
    model = emo.load(folder / "run")
    out = run("eval", "--model", folder / "run", "--data", folder / "docs.jsonl", "--by", "domain", "--json")
    found = json.loads(out)
    result = model.evaluate(emo.Dataset(folder / "docs.jsonl", model.tokenizer))
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", json.dumps(found))]
    for value in (result.loss, *(r.loss for r in result.domains.values())):
        assert any(n == pytest.approx(value, rel=1e-5) for n in numbers), (value, found)


def test_generation(folder, run):
    out = run("generate", "--model", folder / "run", "--prompt", "river bridge", "--tokens", 15)
    model = emo.load(folder / "run")
    assert "".join(model.generate("river bridge", tokens=15)) in out
