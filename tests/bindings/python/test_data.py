# SPDX-License-Identifier: Apache-2.0
import array
import gzip
import json

import pytest

import emo


@pytest.fixture
def files(tmp_path, texts):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as out:
        for text, domain in texts[:10]:
            out.write(json.dumps({"text": text, "domain": domain}) + "\n")
    (tmp_path / "b.txt").write_text(texts[10][0])
    return tmp_path


def test_from_texts_reports_and_can_be_cancelled(texts, tokenizer):
    seen = []

    def progress(phase, done, total):
        seen.append((phase, done, total))
        return len(seen) == 3

    many = list(texts) * 20
    with pytest.raises(emo.Cancelled):
        emo.Dataset.from_texts(many, tokenizer, progress=progress)
    assert [phase for phase, _, _ in seen] == ["tokenize"] * 3
    assert seen[0][1] == 0 and seen[2][1] <= seen[2][2]
    assert len(emo.Dataset.from_texts(many, tokenizer, progress=lambda *at: False)) == len(many)


def test_from_texts(texts, tokenizer):
    made = emo.Dataset.from_texts(iter(texts), tokenizer)
    assert len(made) == 40 and made.domains == ["river", "kitchen"] and made.eos == tokenizer.eos
    assert made.tokens == sum(len(tokenizer.encode(t)) for t, _ in texts)
    assert made.bytes == sum(len(t.encode()) for t, _ in texts) and made.skipped == 0
    document = made[3]
    assert document.domain == "kitchen" and document.tokens.tolist() == tokenizer.encode(texts[3][0])
    assert document.bytes == len(texts[3][0]) and document.prompt_tokens == 0
    assert [d.domain for d in made][:2] == ["river", "kitchen"] and made[-1].domain == "kitchen"
    with pytest.raises(IndexError):
        made[40]
    assert len(emo.Dataset.from_texts(texts, tokenizer, domain="river", max_documents=3)) == 3
    with pytest.raises(emo.Cancelled):
        emo.Dataset.from_texts(texts * 40, tokenizer, progress=lambda *at: True)
    with pytest.raises(ValueError, match="text 1 holds a NUL"):
        emo.Dataset.from_texts(["a", "b\0"], tokenizer)
    with pytest.raises(emo.FormatError):
        emo.Dataset.from_texts(["a", ""], tokenizer)


def test_tokens_are_shared_and_outlive_the_dataset(texts, tokenizer):
    made = emo.Dataset.from_texts(texts, tokenizer)
    first, expected = made[0].tokens, tokenizer.encode(texts[0][0])
    assert first.readonly and made[0].tokens.address == first.address
    made.close()
    del made
    assert first.tolist() == expected
    with pytest.raises(TypeError):
        first.view[0] = 1


def test_from_tokens():
    made = emo.Dataset.from_tokens([[1, 2, 3], array.array("i", [4, 5])], domains=["a", "b"], eos=9)
    assert [d.tokens.tolist() for d in made] == [[1, 2, 3], [4, 5]] and made.vocab_size == 10 and made.eos == 9
    with pytest.raises(emo.RangeError):
        emo.Dataset.from_tokens([[1, -2]])
    with pytest.raises(ValueError, match="2 names for 1"):
        emo.Dataset.from_tokens([[1]], domains=["a", "b"])
    with pytest.raises(TypeError, match="document 0"):
        emo.Dataset.from_tokens([["x"]])


def test_files(files, texts, tokenizer):
    seen = []
    made = emo.Dataset([files / "a.jsonl.gz", str(files / "b.txt")], tokenizer,
                       progress=lambda *at: seen.append(at))
    assert len(made) == 11 and seen and seen[-1][0] == "tokenize"
    assert made[10].tokens.tolist() == tokenizer.encode(texts[10][0])
    assert len(emo.Dataset(files, tokenizer, domain="river")) == 5
    assert len(made.filter("river")) == 5 and len(made.filter(examples=4, seed=1)) == 4
    with pytest.raises(emo.NotFound):
        made.filter("moon")
    with pytest.raises(emo.Cancelled):
        emo.Dataset(files, tokenizer, progress=lambda *at: True)
    (files / "c.jsonl").write_text("{broken\n")
    with pytest.raises(emo.FormatError, match="c.jsonl:1"):
        emo.Dataset(files / "c.jsonl", tokenizer)
    assert emo.Dataset(files, tokenizer, skip_broken=1).skipped == 1


def test_texts(files, texts):
    reader = emo.Texts(files / "a.jsonl.gz", max_documents=4)
    found = list(reader)
    assert [(t.text, t.domain) for t in found] == texts[:4]
    assert reader.count == 4 and reader.bytes == sum(len(t) for t, _ in texts[:4]) and reader.skipped == 0
    trained = emo.Tokenizer.train(emo.Texts(files / "a.jsonl.gz"), vocab_size=270)
    assert trained.hash == emo.Tokenizer.train((t for t, _ in texts[:10]), vocab_size=270).hash
    (files / "c.jsonl").write_text("{broken\n")
    with pytest.raises(emo.FormatError):
        emo.Tokenizer.train(emo.Texts(files / "c.jsonl"))
