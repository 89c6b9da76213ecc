# SPDX-License-Identifier: Apache-2.0
import pytest

import emo


def test_bytes_round_trip():
    tok = emo.Tokenizer.bytes()
    assert len(tok) == tok.vocab_size == 257 and tok.eos == 256
    assert tok.encode("né") == list("né".encode()) and tok.decode(tok.encode("né")) == "né"
    assert tok.encode(b"\0a") == [0, 97] and tok.encode("") == []
    assert tok.token(65) == b"A" and tok.id("A") == 65 and tok.id("AB") is None and tok.is_special(256)
    with pytest.raises(emo.NotFound):
        tok.token(1000)
    with pytest.raises(emo.RangeError) as caught:
        tok.decode([1, 5000])
    assert caught.value.number == 1


def test_special_tokens_only_when_asked():
    tok = emo.Tokenizer.bytes()
    assert 256 not in tok.encode("<|endoftext|>") and tok.encode("<|endoftext|>", parse_special=1) == [256]


def test_training_takes_any_iterable(texts, tokenizer, tmp_path):
    again = emo.Tokenizer.train([text for text, _ in reversed(texts)], vocab_size=280)
    assert again.hash == tokenizer.hash and again.vocab_size <= 280
    path = tmp_path / "tok.json"
    tokenizer.save(path)
    for other in (emo.Tokenizer(path), emo.Tokenizer.load(tmp_path / "tok.json"), emo.Tokenizer(emo.Source(path)),
                  emo.Tokenizer.from_json(path.read_text()), emo.Tokenizer.from_json(tokenizer.to_json())):
        assert other.hash == tokenizer.hash and other.encode("river water.") == tokenizer.encode("river water.")


def test_an_exception_of_the_reader_reaches_the_caller():
    def broken():
        yield "some words"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        emo.Tokenizer.train(broken())
    with pytest.raises(TypeError):
        emo.Tokenizer.train([5])
    with pytest.raises(TypeError, match="iterable of strings"):
        emo.Tokenizer.train("a path")


def test_progress_of_training_can_cancel(texts):
    phases = []
    emo.Tokenizer.train((t for t, _ in texts), vocab_size=270, progress=lambda phase, done, total: phases.append(phase))
    assert "count words" in phases
    with pytest.raises(emo.Cancelled):
        emo.Tokenizer.train((t for t, _ in texts), progress=lambda *at: True)
    with pytest.raises(ZeroDivisionError):
        emo.Tokenizer.train((t for t, _ in texts), progress=lambda *at: 1 // 0)


def test_long_texts_report_and_can_be_cancelled(texts, tokenizer):
    text = " ".join(t for t, _ in texts) * 40
    seen = []
    assert tokenizer.encode(text, progress=lambda *at: seen.append(at)) == tokenizer.encode(text)
    assert seen and seen[-1][0] == "tokenize" and seen[-1][2] == len(text)
    with pytest.raises(emo.Cancelled):
        tokenizer.encode(text, progress=lambda *at: True)
    with pytest.raises(ZeroDivisionError):
        tokenizer.encode(text, progress=lambda *at: 1 // 0)


def test_decoder_gives_whole_characters():
    tok = emo.Tokenizer.bytes()
    with tok.decoder() as decoder:
        pieces = [decoder.push(b) for b in "aé€".encode()]
        assert pieces == ["a", "", "é", "", "", "€"]
        assert decoder.push(0xE2) == "" and decoder.flush() == "\ufffd"
        assert decoder.push(256) == "<|endoftext|>"
    assert tok.decoder(skip_special=1).push(256) == ""


def test_eos_can_be_named():
    tok = emo.Tokenizer.bytes()
    tok.eos = None
    assert tok.eos is None
    tok.eos = 5
    assert tok.eos == 5
    with pytest.raises(emo.RangeError):
        tok.eos = 9999


def test_arrays_of_ids():
    tok = emo.Tokenizer.bytes()
    ids = tok.encode_array("abc")
    assert (ids.dtype, ids.shape, ids.tolist()) == ("i32", (3,), [97, 98, 99])
    assert tok.decode(ids) == "abc" and tok.decode(ids.view) == "abc"


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(emo.NotFound) as caught:
        emo.Tokenizer(tmp_path / "absent.json")
    assert isinstance(caught.value, FileNotFoundError) and "absent.json" in str(caught.value)
    with pytest.raises(emo.FormatError):
        emo.Tokenizer.from_json("{")
