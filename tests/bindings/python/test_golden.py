# SPDX-License-Identifier: Apache-2.0
"""The golden cases through the package: the router, inference, training, selection. EMO_GOLDEN_DIR names their folder.

Tolerances are those of the golden program: several times the measured error of the reference in f32.
"""
import array
import json
import os
import pathlib
import struct

import pytest

import emo

ROOT = pathlib.Path(os.environ.get("EMO_GOLDEN_DIR") or "/nonexistent")
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="EMO_GOLDEN_DIR names no folder of golden cases")
KINDS = {"F32": "f", "I64": "q", "U8": "B"}


def cases(family):
    return sorted(p.parent.name for p in (ROOT / family).glob("*/case.json")) if ROOT.is_dir() else []


class Tensors:
    """A safetensors file."""

    def __init__(self, path):
        raw = memoryview(path.read_bytes())
        size = struct.unpack("<Q", raw[:8])[0]
        self._header, self._data = json.loads(bytes(raw[8:8 + size])), raw[8 + size:]

    def names(self):
        return list(self._header)

    def shape(self, name):
        return self._header[name]["shape"]

    def __getitem__(self, name):
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        return array.array(KINDS[entry["dtype"]], bytes(self._data[begin:end]))

    def rows(self, name):
        flat, width = self[name], self.shape(name)[-1]
        return [flat[i:i + width] for i in range(0, len(flat), width)]


class Case(Tensors):
    def __init__(self, family, name):
        self.folder = ROOT / family / name
        self.options = json.loads((self.folder / "case.json").read_text())
        super().__init__(self.folder / "tensors.safetensors")


def mean(values):
    return sum(values) / len(values)


def flat(values):
    return values.view.cast("B").cast(values.view.format) if values.ndim > 1 else values.view


def close(got, want, tolerance):
    got = flat(got) if isinstance(got, emo.Array) else got
    assert len(got) == len(want)
    worst = max(abs(a - b) for a, b in zip(got, want))
    assert worst <= tolerance, "off by %g, allowed %g" % (worst, tolerance)


def run_router(case, rank, prefix, comm):
    o = case.options
    batch, seq, experts = o["batch"], o["seq_len"], o["num_experts"]
    shared, k, top_k = o["num_shared_experts"], o["num_choose"], o["top_k"]
    router = emo.Router(hidden=o["d_model"], experts=experts, shared=shared, top_k=top_k, comm=comm,
                        norm_p=o["normalize_expert_weights_p"] or 0.0, balance_weight=o["lb_loss_weight"],
                        z_weight=o["z_loss_weight"])
    router.weights = case["W"]
    begin = []
    for row, ends in enumerate(o["ranks"][rank]["document_boundaries"]):
        begin += [row * seq] + [row * seq + end for end in ends]
    begin.append(batch * seq)
    train = o["mode"] == "train"
    if train:
        pool = emo.Pool.table([case[prefix + "pool_size"].tolist()])
    else:
        pool = emo.Pool.uniform(o["min_document_expert_pool"], o["max_document_expert_pool"])
        pool.set_eval_pool(o["eval_document_expert_pool"] or 0)
    pool.set_forced(o["num_forced_experts"])
    routing = router.forward(case[prefix + "x"], rows=batch, seq_len=seq, documents=begin, pool=pool,
                             mode="train" if train else "eval", loss_div_factor=o["loss_div_factor"]
                             if not isinstance(o["loss_div_factor"], list) else o["loss_div_factor"][rank])
    assert flat(routing.indices).tolist() == case[prefix + "expert_indices"].tolist()
    assert flat(routing.allowed).tolist() == case[prefix + "pool"].tolist()
    assert routing.pool_size.tolist() == case[prefix + "pool_size"].tolist()
    assert routing.counts.tolist() == case[prefix + "tokens_per_expert"].tolist()
    close(routing.weights, case[prefix + "expert_weights"], 2e-6)
    close(routing.scores, case[prefix + "scores"], 2e-6)
    close(routing.score_sum, case[prefix + "score_sum"], 2e-5)
    close(routing.usage, case[prefix + "doc_probs"], 2e-5)
    if train:
        close([routing.balance_loss], case[prefix + "lb_loss"], 3e-6)
        close([routing.z_loss], case[prefix + "z_loss"], 2e-5)
        close([routing.loss], case[prefix + "aux_loss"], 2e-5)
    if comm is not None:
        assert routing.counts_all.tolist() == case["dp.counts"].tolist()
    factors = case.rows(prefix + "R")
    d = array.array("f", [f for row in factors for f in list(row) + [0.0] * (top_k - k)])
    dx, dw = emo.Array("f32", (batch * seq, o["d_model"])), emo.Array("f32", (experts, o["d_model"]))
    router.backward(routing, d, dx=dx, dw=dw)
    close(dx, case[prefix + "dX"], 1e-5)
    close(dw, case[prefix + "dW"], 1e-5)


@pytest.mark.parametrize("name", cases("router"))
def test_router(name):
    case = Case("router", name)
    ranks = case.options["num_ranks"]
    if ranks == 1:
        run_router(case, 0, "", None)
    else:
        emo.comm.run(ranks, lambda comm: run_router(case, comm.rank, "rank%d." % comm.rank, comm))


@pytest.mark.parametrize("name", cases("infer"))
def test_infer(name):
    case = Case("infer", name)
    model = emo.load(case.folder)
    vocab = model.info.vocab
    logits = case["A.logits"]
    for row, ids in enumerate(case.rows("A.input_ids")):
        close(model.logits(ids), logits[row * len(ids) * vocab:(row + 1) * len(ids) * vocab], 1e-4)
    for i in range(3):
        prompt, output = case["gen.prompt.%d" % i].tolist(), case["gen.output.%d" % i].tolist()
        new = case.options["gen_new_tokens"]
        session = model.session(max_tokens=new, ignore_eos=1).append(prompt)
        while session.advance() != emo.State.DONE:
            pass
        assert session.generated() == output[-new:]


@pytest.mark.parametrize("name", cases("subset"))
def test_subset(name):
    case = Case("subset", name)
    model = emo.load(case.folder)
    lengths = case["calib.lengths"].tolist()
    calibration = emo.Dataset.from_tokens([ids[:n] for ids, n in zip(case.rows("calib.input_ids"), lengths)])
    stats = model.stats(calibration, easy_ep=1, prepend_eos=0)
    probs = [p for layer in range(model.info.layers) for p in stats.probs(layer)]
    close(probs, case["oneshot.avg_probs"], 2e-6)
    scores = [p for layer in range(model.info.layers) for p in stats.easy_ep(layer)]
    close(scores, case["easyep.scores"], 1e-5 * max(case["easyep.scores"]))
    for keep in case.options["keep_k"]:
        for method, name_of in (("usage", "oneshot"), ("layerwise", "layerwise"), ("easy_ep", "easyep")):
            chosen = emo.select.experts(model, calibration, keep=keep, method=method, prepend_eos=0,
                                        keep_shared=case.options["num_shared_experts_to_keep"])
            assert chosen == [row.tolist() for row in case.rows("%s.k%d.keep" % (name_of, keep))]
            small, want = model.prune(keep=chosen), case["%s.k%d.logits" % (name_of, keep)]
            each = len(want) // 2
            for row, ids in enumerate(case.rows("eval.input_ids")):
                close(small.logits(ids), want[row * each:(row + 1) * each], 1e-4)


def recorded_pools(case):
    """The recorded pool sizes by layer and by the place of the document's first token, which is its id in training."""
    o, config = case.options, json.loads((case.folder / "config.json").read_text())
    experts = config.get("num_experts_per_layer") or [config["num_experts"]] * o["n_layers"]
    each, sizes = case.shape("pool_sizes")[1], case["pool_sizes"]
    table, moe = [], 0
    for layer in range(o["n_layers"]):
        table.append([1] * (o["scheduler"]["max_steps"] * o["batch"] * o["seq_len"]))
        if experts[layer]:
            for (step, row, begin, _), size in zip(case.rows("router_docs"), sizes[moe * each:(moe + 1) * each]):
                table[-1][(step * o["batch"] + row) * o["seq_len"] + begin] = size
            moe += 1
    return emo.Pool.table(table)


@pytest.mark.parametrize("name", cases("train"))
def test_train(name, tmp_path):
    case = Case("train", name)
    o, s, ids = case.options, case.options["scheduler"], case["input_ids"]
    if any(label == -100 for row in case.rows("labels") for label in row[:-1]):
        pytest.skip("its labels are masked inside documents, which a dataset does not say")
    model = emo.load(case.folder)
    data = emo.Dataset.from_tokens([array.array("i", ids)], eos=o["eos_token_id"])  # one document: the rows in order
    optimizer = o["optimizer"]
    options = dict(pool=recorded_pools(case), schedule="cosine", warmup=s["warmup_steps"], max_steps=s["max_steps"],
                   alpha_f=s["alpha_f"], warmup_min_lr=s["warmup_min_lr"], lr=optimizer["lr"], eps=optimizer["eps"],
                   beta1=optimizer["betas"][0], beta2=optimizer["betas"][1], weight_decay=optimizer["weight_decay"],
                   max_grad_norm=o["max_grad_norm"], balance_weight=o["lb_loss_weight"], seq_len=o["seq_len"],
                   z_weight=o["router_z_loss_weight"], lm_z_weight=o["lm_z_loss_multiplier"],
                   batch_rows=o["batch"], accumulate=o["batch"] // o["microbatch_instances"], balance_scope="microbatch")
    with emo.Trainer(model, data, **options) as trainer:
        for step in range(o["steps"]):
            m = trainer.step()
            close([m.loss], [case["ce_loss"][step]], 1e-5)
            close([m.lm_z_loss], [case["lm_z_loss"][step]], 5e-9)
            close([m.total_loss], [case["total_loss"][step]], 1e-5)
            close([m.grad_norm], [case["grad_norm"][step]], 1e-5)
            close([m.balance_loss], [mean(case.rows("router_lb_loss")[step])], 5e-6)
            close([m.router_z_loss], [mean(case.rows("router_z_loss")[step])], 5e-5)
            assert m.lr == pytest.approx(o["lr"][step], rel=1e-7)
    model.save(tmp_path / "after")
    after = Tensors(tmp_path / "after" / "model.safetensors")
    names = [name[len("final."):] for name in case.names() if name.startswith("final.")]
    off = sorted(abs(a - b) for name in names for a, b in zip(after[name], case["final." + name]))
    assert len(names) > 20 and off[-1 - len(off) // 1000] <= 3e-6 and off[-1] <= 1e-4, off[-1]


def test_learning_rates():
    case = Case("train", "basic")
    o = case.options
    for step, lr in enumerate(o["lr"], 1):
        got = emo.schedule_lr(step, schedule="cosine", lr=o["optimizer"]["lr"], warmup=o["scheduler"]["warmup_steps"],
                              max_steps=o["scheduler"]["max_steps"], alpha_f=o["scheduler"]["alpha_f"])
        assert got == pytest.approx(lr, rel=1e-7)
