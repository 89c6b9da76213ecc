# SPDX-License-Identifier: Apache-2.0
import io
import json
import mmap

import pytest

import emo


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "saved"
    trained.save(path)
    return path


def tensors(model):
    names = ["model.embed_tokens.weight", "model.layers.1.mlp.gate.weight", "model.layers.0.mlp.experts.3.up_proj.weight"]
    return [model.tensor(name).tobytes() for name in names]


def test_info_and_config(trained):
    info = trained.info
    assert (info.layers, info.hidden, info.top_k, info.max_positions) == (2, 32, 3, 256)
    assert info.dtype == emo.Dtype.F32 and info.loaded == info.parameters > info.active > 0
    assert trained.experts == [9, 9] and trained.shared == [1, 1] and trained.count_non_finite() == 0
    with pytest.raises(emo.Cancelled):
        trained.count_non_finite(progress=lambda phase, done, total: phase == "count")
    assert trained.config["num_experts"] == 9
    assert emo.Model.info_of(trained.config).parameters == info.parameters
    with pytest.raises(ValueError, match="hidden_size"):
        emo.Model({"hidden_size": -4})
    with pytest.raises(emo.FormatError):
        emo.Model("no json")


def test_seeds_make_weights(new_model):
    assert tensors(new_model(5)) == tensors(new_model(5)) != tensors(new_model(6))


def test_save_and_load(trained, folder):
    again = emo.load(folder)
    assert tensors(again) == tensors(trained)
    assert again.tokenizer.hash == trained.tokenizer.hash and again.tokenizer.eos == trained.tokenizer.eos
    assert "".join(again.generate("river", tokens=8)) == "".join(trained.generate("river", tokens=8))
    half = emo.load(folder, dtype="bf16")
    assert half.info.dtype == emo.Dtype.BF16
    with pytest.raises(FileNotFoundError, match="nowhere"):
        emo.load(folder / "nowhere")


def test_load_a_subset(trained, folder, texts):
    mask = trained.select(texts[0][0], keep=4)
    part = emo.load(folder, subset=mask)
    assert part.info.loaded < part.info.parameters and part.mask() == mask
    assert part.logits([1, 2, 3]).tobytes() == trained.logits([1, 2, 3], mask=mask).tobytes()
    with pytest.raises(emo.InvalidArgument):
        part.save(folder / "part")


def test_a_memory_budget(trained, folder, data):
    whole = emo.load(folder)
    assert whole.cache_stats.capacity == 0
    want = whole.logits([1, 2, 3, 200]).tobytes()
    seen = []

    def worth(entry):
        seen.append(entry)
        return -entry.steps_unused

    place = emo.load(folder, memory_budget=2**60).cache_stats
    for options in ({}, {"cache_policy": "lru"}, {"cache_policy": emo.CachePolicy.LFU, "no_prefetch": 1}, {"cache_worth": worth}):
        model = emo.load(folder, memory_budget=3 * place.bytes // place.capacity, **options)
        for _ in range(2):
            assert model.logits([1, 2, 3, 200]).tobytes() == want
        stats = model.cache_stats
        assert stats.capacity == 3 and stats.experts == 16 and stats.misses > 3 and stats.evictions > 0 and stats.bytes_read > 0
    assert stats.policy == emo.CachePolicy.HOST and seen and {e.layer for e in seen} <= {0, 1}
    with pytest.raises(ValueError, match="token chooses"):
        emo.load(folder, memory_budget=1)
    with pytest.raises(emo.Unsupported, match="memory_budget"):
        emo.Trainer(model, data, max_steps=1, seq_len=16)
    with pytest.raises(TypeError, match="callable"):
        emo.load(folder, memory_budget=2**60, cache_worth=1)


@pytest.mark.parametrize("kind", ["bytes", "view", "mmap", "file", "stream", "source"])
def test_load_from_sources(trained, folder, kind):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    with open(path, "rb") as file:
        what = {"bytes": raw, "view": memoryview(bytearray(raw)), "mmap": mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
                "file": file, "stream": io.BytesIO(raw), "source": emo.Source(path)}[kind]
        model = emo.Model.from_sources((folder / "config.json").read_text(), [what], tokenizer=trained.tokenizer)
        del what
        assert tensors(model) == tensors(trained)
        assert "".join(model.generate("river", tokens=4)) == "".join(trained.generate("river", tokens=4))
        model.close()


def test_a_file_that_fails_raises_its_own_exception(folder):
    class Torn(io.BytesIO):
        def read(self, n=-1):
            if self.tell() > 1000:
                raise OSError(5, "the disk is gone")
            return super().read(n)

    with pytest.raises(OSError, match="the disk is gone"):
        emo.Model.from_sources(json.loads((folder / "config.json").read_text()),
                               [Torn((folder / "model.safetensors").read_bytes())])


def test_sources(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    for source in (emo.Source(path), emo.Source(bytes(range(100))), emo.Source(io.BytesIO(bytes(range(100))))):
        assert len(source) == 100 and source.read_at(10, 3) == b"\x0a\x0b\x0c" and source.read_at(100, 0) == b""
        with pytest.raises(emo.RangeError):
            source.read_at(99, 2)
    view = emo.Source(path).map()  # the view keeps the source alive
    assert view[5] == 5 and view.nbytes == 100 and view.readonly
    assert emo.Source(io.BytesIO(b"abc")).map() is None
    with pytest.raises(FileNotFoundError):
        emo.Source(tmp_path / "absent")


def test_prune_and_merge(trained, texts, folder):
    mask = trained.select([text for text, domain in texts if domain == "river"][:3], keep=5, method="layerwise")
    small = trained.prune(mask, method="layerwise")
    assert small.experts == [5, 5] and small.info.parameters < trained.info.parameters
    assert [small.original_expert(0, i) for i in range(5)] == list(mask[0])
    with pytest.raises(IndexError):
        small.original_expert(0, 5)
    assert small.logits([1, 2, 3]).tobytes() == trained.logits([1, 2, 3], mask=mask).tobytes()
    same = trained.merge(small)
    assert tensors(same) == tensors(trained)
    other = trained.prune(keep=[list(ids) for ids in mask.layers])
    assert other.experts == small.experts
    small.save(folder / "small")
    assert emo.load(folder / "small").original_expert(1, 0) == mask[1][0]
    with pytest.raises(ValueError, match="layers"):
        trained.prune(keep=[[0, 8]])
    with pytest.raises(emo.Mismatch):
        trained.prune(emo.Mask([5, 5], 1))


def test_select(trained, texts, data, tmp_path):
    river = data.filter("river")
    masks = {method: trained.select(river, keep=4, method=method) for method in ("usage", "layerwise", "easy_ep")}
    assert all(mask.count(0) == mask.count(1) == 4 for mask in masks.values())
    assert trained.select(keep=4, method="random", seed=1) != trained.select(keep=4, method="random", seed=2)
    stats = trained.stats(river, easy_ep=1)
    assert stats.select(trained, keep=4) == masks["usage"]
    assert emo.select.from_stats(trained, stats, keep=4, method=emo.SelectMethod.EASY_EP) == masks["easy_ep"]
    assert emo.select.experts(trained, river, keep=4) == [list(ids) for ids in masks["usage"].layers]
    assert len(stats.probs(0)) == 9 and len(stats.easy_ep(0)) == 9 and stats.layers == 2
    kitchen = trained.stats(data.filter("kitchen"), easy_ep=1)
    both = stats + kitchen
    assert both.tokens == stats.tokens + kitchen.tokens
    both.save(tmp_path / "stats.json")
    assert emo.Stats.load(tmp_path / "stats.json").probs(1).tolist() == both.probs(1).tolist()
    with pytest.raises(emo.NotFound):
        trained.stats(texts[0][0]).easy_ep(0)
    with pytest.raises(emo.RangeError, match="keep"):
        trained.select(river, keep=40)


def test_evaluate(trained, data, texts):
    result = trained.evaluate(data, per_document=True)
    assert set(result.domains) == {"river", "kitchen"} and len(result.documents) == len(data)
    assert sum(r.tokens for r in result.domains.values()) == result.total.tokens == data.tokens
    assert sum(r.loss_sum for r in result.documents) == pytest.approx(result.total.loss_sum)
    assert result.loss == pytest.approx(result.total.loss_sum / result.total.tokens)
    assert result.perplexity > 1 and 0 < result.bits_per_byte < 8
    alone = trained.evaluate([texts[0]])
    assert alone.total == result.documents[0] and trained.evaluate(texts[0][0]).loss == alone.loss
    narrow = emo.Mask(trained.experts, trained.shared, [[], []])
    assert trained.evaluate(data, mask=narrow).loss != result.loss
    assert trained.evaluate(data, pool="fixed:3").loss != result.loss


def test_evaluate_choices(trained, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "domain": "river", "context": "river bridge", "answer": i % 2,
                                        "choices": [" water stone", " qqqq zzzz"]}) + "\n" for i in range(4)))
    items = emo.Choices(path)
    assert len(items) == 4 and items[1].answer == 1 and items[-1].choices == (" water stone", " qqqq zzzz")
    assert [item.id for item in items] == ["0", "1", "2", "3"]
    scores = trained.evaluate_choices(items)
    assert scores.answers == [0, 0, 0, 0] and scores.accuracy == 0.5 and scores.total.items == 4
    with pytest.raises(IndexError):
        items[4]


def test_export(trained, tmp_path):
    seen = []
    info = trained.export(tmp_path / "model.gguf", dtype="f16", progress=lambda *at: seen.append(at))
    again = emo.load(tmp_path / "model.gguf")
    assert "".join(again.generate("river", tokens=4)) == "".join(trained.generate("river", tokens=4))
    memory = emo.Model.from_sources(None, [(tmp_path / "model.gguf").read_bytes()])
    assert tensors(memory) == tensors(again)
    assert info.bytes == (tmp_path / "model.gguf").stat().st_size and info.tensors > 10 and seen[-1][0] == "export"
    with pytest.raises(emo.Cancelled):
        trained.export(tmp_path / "other.gguf", progress=lambda *at: True)
    assert not (tmp_path / "other.gguf").exists()


def test_progress_everywhere(trained, folder, data, tmp_path):
    stop = lambda *at: True  # noqa: E731
    work = [lambda: emo.Model(trained.config, progress=stop), lambda: emo.load(folder, progress=stop), lambda: trained.save(tmp_path / "x", progress=stop),
            lambda: trained.prune(trained.mask(), progress=stop), lambda: trained.merge(trained.prune(trained.mask()), progress=stop),
            lambda: trained.select(data, keep=4, progress=stop), lambda: trained.stats(data, progress=stop),
            lambda: trained.evaluate(data, progress=stop)]
    for call in work:
        with pytest.raises(emo.Cancelled):
            call()

    def fail(*at):
        raise UnicodeError("mine")

    for call in (lambda: emo.load(folder, progress=fail), lambda: trained.evaluate(data, progress=fail)):
        with pytest.raises(UnicodeError, match="mine"):
            call()


def test_compute(new_model):
    model = new_model()
    exact = model.logits([1, 2, 3]).tolist()
    assert model.compute == emo.Dtype.F32
    model.compute = "bf16"
    assert model.compute == emo.Dtype.BF16 and model.logits([1, 2, 3]).tolist() != exact
    model.compute = emo.Dtype.F32
    assert model.logits([1, 2, 3]).tolist() == exact
    with pytest.raises(emo.Error, match="compute"):
        model.compute = "u8"


def test_devices(new_model):
    model = new_model()
    expected = model.logits([1, 2, 3]).tolist()
    assert model.to("cpu") is model and model.logits([1, 2, 3]).tolist() == expected
    with pytest.raises(emo.NotFound, match="cpu"):
        model.to("abacus")
    with model.session(), pytest.raises(emo.Busy):
        model.to("cpu")


def test_tokenizer_of_a_model(new_model):
    model = new_model()
    other = emo.Tokenizer.bytes()
    model.tokenizer = other
    assert model.tokenizer is other
    other.close()
    assert model.tokenizer.vocab_size == 257  # the library keeps it
    model.tokenizer = None
    assert model.tokenizer is None
