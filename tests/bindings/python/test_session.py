# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

import emo

PROMPT = "river bridge water"


def test_generation_streams_text(trained):
    pieces = list(trained.generate(PROMPT, tokens=12))
    assert len(pieces) > 1 and len("".join(pieces)) > 5
    session = trained.session(max_tokens=12)
    assert list(session.generate(PROMPT)) == pieces
    assert session.count() == len(session.generated()) == len(session.logprobs()) <= 12
    assert all(p <= 0 for p in session.logprobs())
    assert session.stop_reason() in (emo.StopReason.LENGTH, emo.StopReason.EOS)


def test_tokens_of_generate_limit_this_call(trained):
    whole = "".join(trained.generate(PROMPT, tokens=12))
    session = trained.session(ignore_eos=1)
    first = "".join(session.generate(PROMPT, tokens=5))
    assert session.count() == 5
    rest = "".join(session.generate(tokens=7))
    assert session.count() == 12 and whole == first + rest
    assert list(session.generate(tokens=0)) == []


def test_leaving_the_loop_leaves_the_session_usable(trained):
    session = trained.session(max_tokens=12, ignore_eos=1)
    some = list(itertools.islice(session.generate(PROMPT), 3))
    rest = list(session.generate())
    assert "".join(some + rest) == "".join(trained.generate(PROMPT, tokens=12, ignore_eos=1))


def test_budgets_never_change_a_result(trained):
    expected = "".join(trained.generate(PROMPT * 20, tokens=20))
    session = trained.session(max_tokens=20).append(PROMPT * 20)
    text, calls, state = "", 0, emo.State.PENDING
    while state != emo.State.DONE:
        state = session.advance(steps=1)
        text += session.text
        calls += 1
    assert text == expected and calls > 40
    session.reset()
    session.append(PROMPT * 20)
    while session.advance(ms=0.2, tokens=8) != emo.State.DONE:
        pass
    assert session.count() == len(session.generated())


def test_tokens_and_sequences(trained, tokenizer):
    ids = tokenizer.encode(PROMPT)
    session = trained.session(sequences=2, max_tokens=6, ignore_eos=1, prepend_eos=0)
    session.append(ids, 0).append("oven flour", 1)
    texts = ["", ""]
    state = emo.State.PENDING
    while state != emo.State.DONE:
        state = session.advance()
        for i in range(2):
            texts[i] += session.text_of(i)
    assert session.generated(0) != session.generated(1) and all(len(session.generated(i)) == 6 for i in range(2))
    assert all(texts) and session.generated(5) == []
    with pytest.raises(emo.RangeError) as caught:
        session.append([1, 2, 99999], 1)
    assert caught.value.number == 2


def test_logits_agree_with_a_pass_without_cache(trained, tokenizer):
    ids = tokenizer.encode(PROMPT)
    session = trained.session(max_tokens=-1, prepend_eos=0).append(ids)
    with pytest.raises(emo.NotFound):
        session.logits()
    while session.advance() != emo.State.DONE:
        pass
    cached, whole = session.logits(), trained.logits(ids)
    assert whole.shape == (len(ids), trained.info.vocab) and cached.shape == (trained.info.vocab,)
    # The same sums in the same order, but for attention, which sees the cache in another arrangement: f32 rounding.
    assert max(abs(a - b) for a, b in zip(cached, whole[-1])) < 1e-4


def test_pool_of_the_prompt(trained):
    session = trained.session(pool=emo.Pool.from_prompt(3), max_tokens=5).append(PROMPT)
    while session.advance() != emo.State.DONE:
        pass
    mask = session.pool()
    assert [mask.count(layer) for layer in range(2)] == [4, 4]
    with pytest.raises(emo.Error, match="pool"):
        trained.session(pool="uniform:2:8")


def test_masks_and_sampling(trained):
    mask = emo.Mask(trained.experts, trained.shared, [[0, 1, 2], [3, 4, 5]])
    options = dict(tokens=10, mask=mask, temperature=1.0, top_p=0.9, seed=3)
    one, two = ("".join(trained.generate(PROMPT, **options)) for _ in range(2))
    assert one == two and one != "".join(trained.generate(PROMPT, **{**options, "seed": 4}))


def test_stop_strings(trained, tokenizer):
    whole = "".join(trained.generate(PROMPT, tokens=20))
    word = whole[6:9]
    for stop in (word, [word, "zzz"]):
        session = trained.session(stop=stop, max_tokens=20)
        assert "".join(session.generate(PROMPT)) == whole[:whole.index(word)]
        assert session.stop_reason() == emo.StopReason.STRING
    # What a stop string holds back is given when the caller's number of tokens ends it, and not a second time later.
    pieces = list(trained.generate(PROMPT, tokens=20))
    held = trained.session(stop="".join(pieces[2:4]) + "\x01", ignore_eos=1)
    first = "".join(held.generate(PROMPT, tokens=3))
    assert first == tokenizer.decode(held.generated())
    assert first + "".join(held.generate(tokens=9)) == tokenizer.decode(held.generated())


def test_progress_cancels_and_the_session_goes_on(trained):
    expected = "".join(trained.generate(PROMPT * 10, tokens=8))
    asked = []

    def progress(phase, done, total):
        asked.append(phase)
        return len(asked) == 1

    session = trained.session(max_tokens=8, progress=progress).append(PROMPT * 10)
    with pytest.raises(emo.Cancelled):
        while True:
            session.advance()
    assert "".join(session.generate()) == expected


def test_an_exception_in_progress_reaches_the_caller(trained):
    def progress(*at):
        raise KeyError("mine")

    session = trained.session(max_tokens=2, progress=progress).append(PROMPT)
    with pytest.raises(KeyError, match="mine"):
        session.advance()


def test_without_tokenizer():
    model = emo.Model({**{"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 0, "vocab_size": 50, "eos_token_id": 0}})
    assert model.tokenizer is None
    with pytest.raises(emo.InvalidArgument):
        model.session().append("text")
    with pytest.raises(ValueError, match="tokenizer"):
        model.select("text", keep=2)
    session = model.session(max_tokens=3).append([1, 2, 3])
    assert list(session.generate()) == [] and session.count() == 3


def test_sequences_come_and_go(trained):
    prompts = ["river bridge", "oven flour butter", "the tide", "bread"]
    alone = [list(trained.session(max_tokens=5, ignore_eos=1, seed=i, temperature=1.0).generate(p))
             for i, p in enumerate(prompts)]
    session = trained.session(sequences=2, batch_sequences=1, batching=emo.Batching.POOL, count_experts=1, page_tokens=8)
    waiting, running, texts = list(range(4)), {}, {}
    while waiting or running:
        while waiting and len(running) < 2:
            i = waiting.pop(0)
            sequence = session.add(max_tokens=5, ignore_eos=1, seed=i, temperature=1.0)
            session.append(prompts[i], sequence)
            running[sequence] = i
            texts[i] = ""
        session.advance()
        for sequence, i in list(running.items()):
            texts[i] += session.text_of(sequence)
            if session.stop_reason(sequence) != emo.StopReason.NONE:
                session.advance()  # what the decoder held back
                texts[i] += session.text_of(sequence)
                session.remove(sequence)
                del running[sequence]
    assert [texts[i] for i in range(4)] == ["".join(pieces) for pieces in alone]
    did = session.statistics
    assert did.sequences == 0 and did.pages_used == 0 and did.batch_sequences == did.batches
    assert did.batch_experts > 0 and did.longest_wait >= 1
    sequence = session.add()
    session.append("river", sequence)
    session.cancel(sequence)
    assert session.stop_reason(sequence) == emo.StopReason.CANCELLED
    session.add()
    with pytest.raises(emo.LimitError):
        session.add(seed=3)
    with pytest.raises(TypeError):
        session.add(sead=3)
