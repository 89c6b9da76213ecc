# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest

import emo

SMALL = dict(pool="uniform:2:8", batch_rows=4, seq_len=32, seed=3)


def losses(trainer):
    return [step.loss for step in trainer]


def test_training_in_ten_lines(texts):
    tok = emo.Tokenizer.train((text for text, _ in texts), vocab_size=270)
    data = emo.Dataset.from_texts(texts, tok)
    model = emo.Model({"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "num_experts": 9, "num_shared_experts": 1, "num_experts_per_tok": 3}, tokenizer=tok)
    with emo.Trainer(model, data, pool=emo.Pool.uniform(2, 8), max_steps=30, batch_rows=4, seq_len=32, lr=1e-2) as trainer:
        found = [(step.step, step.loss) for step in trainer]
    assert [step for step, _ in found] == list(range(1, 31)) and found[-1][1] < found[0][1] - 1


def test_loop_run_and_callback_agree(new_model, data):
    with new_model().train(data, max_steps=6, **SMALL) as trainer:
        assert trainer.at == 0 and trainer.steps == 6
        stepped = losses(trainer)
        assert trainer.at == 6 and list(trainer) == []
    seen = []
    with new_model().train(data, max_steps=6, on_step=lambda m: seen.append(m), **SMALL) as trainer:
        trainer.run()
    assert [m.loss for m in seen] == stepped
    assert all(not m.skipped and m.steps == 6 and m.grad_norm > 0 and math.isnan(m.valid_loss) for m in seen)


def test_accumulation_and_options_matter(new_model, data):
    def last(**options):
        with new_model().train(data, max_steps=3, **{**SMALL, **options}) as trainer:
            return losses(trainer)[-1]

    assert last(lr=0.0) != last(lr=1e-2) and last(pool=None) != last(pool="fixed:2")
    assert last(balance_weight=0.0, accumulate=2) == pytest.approx(last(balance_weight=0.0), rel=1e-5)  # other sums


def test_on_step_stops_and_the_run_goes_on(new_model, data):
    with new_model().train(data, max_steps=6, **SMALL) as trainer:
        expected = losses(trainer)
    seen = []

    def on_step(metrics):
        seen.append(metrics.loss)
        return metrics.step == 2

    with new_model().train(data, max_steps=6, on_step=on_step, **SMALL) as trainer:
        with pytest.raises(emo.Cancelled, match="step 2"):
            trainer.run()
        assert trainer.at == 2
        trainer.run()
    assert seen == expected


def test_an_exception_in_a_callback_reaches_the_caller(new_model, data):
    def on_step(metrics):
        if metrics.step == 2:
            raise OverflowError("mine")

    def progress(phase, done, total):
        if phase == "forward":
            raise RecursionError("mine too")

    with new_model().train(data, max_steps=4, on_step=on_step, **SMALL) as trainer:
        with pytest.raises(OverflowError, match="mine"):
            for _ in trainer:
                pass
        trainer.run()
        assert trainer.at == 4
    with new_model().train(data, max_steps=4, accumulate=2, progress=progress, **SMALL) as trainer:
        with pytest.raises(RecursionError, match="mine too"):
            trainer.run()


def test_callbacks_stay_alive(new_model, data):
    seen = []

    class Host:
        def on_step(self, metrics):
            seen.append(metrics.step)

    trainer = new_model().train(data, max_steps=3, on_step=Host().on_step, progress=lambda *at: False, **SMALL)
    import gc

    gc.collect()
    trainer.run()
    assert seen == [1, 2, 3]


def test_run_folder_and_resume(new_model, data, tmp_path):
    out = tmp_path / "run"
    with new_model().train(data, max_steps=6, **SMALL) as trainer:
        expected = losses(trainer)
    options = dict(max_steps=6, out=out, checkpoint_every=2, **SMALL)
    with new_model().train(data, **options) as trainer:
        first = [trainer.step().loss for _ in range(4)]
        trainer.checkpoint()
    with pytest.raises(FileExistsError):
        new_model().train(data, **options)
    with new_model().train(data, resume=1, **options) as trainer:
        assert trainer.at == 4
        assert first + losses(trainer) == expected
    with new_model().train(data, resume=1, **options) as trainer:
        assert losses(trainer) == []
    with pytest.raises(emo.Mismatch, match="seq_len"):
        new_model().train(data, resume=1, **{**options, "seq_len": 16})
    run = emo.Run(out)
    assert [m["loss"] for m in run.metrics()] == pytest.approx(expected)
    assert run.latest == run.checkpoints[-1] and run.latest.name == "step-6" and len(run.checkpoints) == 2
    assert run.model().info.layers == 2
    with pytest.raises(FileNotFoundError):
        emo.Run(tmp_path)


def test_a_checkpoint_can_be_cancelled(new_model, data, tmp_path):
    phases, refuse = [], []

    def progress(phase, done, total):
        phases.append(phase)
        return bool(refuse)

    with new_model().train(data, max_steps=3, out=tmp_path / "run", progress=progress, **SMALL) as trainer:
        trainer.step()
        refuse.append(1)
        with pytest.raises(emo.Cancelled):
            trainer.checkpoint()
        assert emo.Run(tmp_path / "run").latest is None
        refuse.clear()
        trainer.checkpoint()
        assert "checkpoint" in phases and emo.Run(tmp_path / "run").latest.name == "step-1"
        trainer.run()


def test_validation_and_profile(new_model, data):
    with new_model().train(data.filter("river"), max_steps=2, valid=data.filter("kitchen"), valid_every=1, profile=1,
                           **SMALL) as trainer:
        assert all(step.valid_loss > 0 for step in trainer)
        profile = trainer.profile()
    parts = {entry.part for entry in profile}
    assert {"experts", "routing", "head"} <= parts and any(entry.backward for entry in profile)
    with new_model().train(data, max_steps=1, **SMALL) as trainer:
        trainer.run()
        assert trainer.profile() == []


def test_the_model_is_the_trainers(new_model, data):
    model = new_model()
    trainer = model.train(data, max_steps=2, **SMALL)
    with pytest.raises(emo.Busy):
        model.session()
    trainer.close()
    trainer.close()
    with pytest.raises(ValueError, match="closed"):
        trainer.step()
    assert "".join(model.generate("river", tokens=2))


def test_masks_in_training(new_model, data):
    model = new_model()
    mask = emo.Mask(model.experts, 1, [[0, 1, 2], [3, 4, 5]])
    with model.train(data, max_steps=2, mask=mask, train_only="experts", **{**SMALL, "pool": None}) as trainer:
        assert len(losses(trainer)) == 2


def test_ranks_in_threads(new_model, data, tokenizer):
    options = dict(max_steps=3, **SMALL)
    with new_model().train(data, **options) as trainer:
        alone = losses(trainer)

    def work(comm):
        with new_model().train(data, comm=comm, **options) as trainer:
            return losses(trainer)

    both = emo.comm.run(2, work)
    assert both[0] == both[1]
    assert both[0] == pytest.approx(alone, rel=1e-5)  # sums over two ranks


def test_no_limit_is_an_error(new_model, data):
    with new_model().train(data, **SMALL) as trainer, pytest.raises(emo.InvalidArgument, match="max_steps"):
        trainer.run()


def test_metrics_have_the_names_of_the_run_folder(new_model, data, tmp_path):
    with new_model().train(data, max_steps=1, out=tmp_path / "run", **SMALL) as trainer:
        trainer.run()
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert set(line) <= set(emo.StepMetrics._fields) | {"skipped"}
