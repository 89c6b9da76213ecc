# SPDX-License-Identifier: Apache-2.0
"""Options are keywords with the names of C; what is wrong is said with what would be right."""
import pytest

import emo


@pytest.mark.parametrize("given, near", [
    ("learning_rate", "lr"), ("batch_size", "batch_rows"), ("max_step", "max_steps"), ("sequence_len", "seq_len"),
])
def test_an_unknown_option_names_near_ones(new_model, data, given, near):
    with pytest.raises(TypeError, match=r"emo.Trainer has no option '%s'; did you mean .*\b%s\b" % (given, near)):
        emo.Trainer(new_model(), data, **{given: 1})


def test_an_option_unlike_all_lists_them():
    with pytest.raises(TypeError, match="the options are parse_special, add_special"):
        emo.Tokenizer.bytes().encode("x", zzz=1)


def test_struct_size_and_reserved_fields_are_no_options(new_model):
    for name in ("struct_size", "reserved", "n_stop"):
        with pytest.raises(TypeError, match="has no option"):
            new_model().session(**{name: 1})


@pytest.mark.parametrize("name, value, error", [
    ("seq_len", "long", TypeError), ("seq_len", 1.5, TypeError), ("seq_len", 2**31, ValueError), ("seed", -1, ValueError),
    ("schedule", "sine", ValueError), ("lr", "fast", TypeError), ("valid", 5, TypeError), ("progress", 3, TypeError),
    ("out", 7, TypeError), ("out", "a\0b", ValueError),
])
def test_wrong_values_are_named(new_model, data, name, value, error):
    with pytest.raises(error, match=name if "\0" not in str(value) else "NUL"):
        emo.Trainer(new_model(), data, **{name: value})


def test_the_library_checks_ranges(new_model, data):
    with pytest.raises(emo.RangeError, match="batch_rows") as caught:
        emo.Trainer(new_model(), data, batch_rows=-3)
    assert isinstance(caught.value, ValueError) and caught.value.status == emo.Status.RANGE


def test_constants_by_member_number_and_name(new_model, data):
    for schedule in (emo.Schedule.WSD, 3, "wsd", "WSD"):
        with emo.Trainer(new_model(), data, max_steps=1, schedule=schedule) as trainer:
            assert trainer.steps == 1
    with pytest.raises(ValueError, match="one of cosine, linear, constant, wsd"):
        emo.schedule_lr(1, schedule="none")


def test_docstrings_have_the_options():
    assert "lr: peak, 4e-3" in emo.Trainer.__doc__ and "keep: experts kept per MoE layer" in emo.select.select.__doc__
    assert "struct_size" not in emo.Trainer.__doc__


def test_train_plan(new_model):
    model = new_model()
    plan = emo.train_plan(model.config, batch_rows=4, seq_len=16, pool="uniform:2:3")
    assert plan.parameters == model.info.parameters and plan.tokens == 64 and plan.fits is None
    assert plan.moments == 2 * plan.gradients and plan.workspaces["experts"] > 0
    halves = emo.train_plan(model.config, batch_rows=4, seq_len=16, accumulate=2)
    assert halves.tokens == 32 and halves.saved < plan.saved and halves.total < plan.total
    with pytest.raises(emo.NotFound):
        emo.train_plan(model.config, device="moon")
    with pytest.raises(TypeError, match="did you mean"):
        emo.train_plan(model.config, batch_row=4)


def test_schedule_lr():
    assert emo.schedule_lr(5, schedule="constant", lr=0.5, max_steps=10, warmup=0) == pytest.approx(0.5)
    with pytest.raises(emo.RangeError):
        emo.schedule_lr(5)
