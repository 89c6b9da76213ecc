# SPDX-License-Identifier: Apache-2.0
"""Evaluation by task."""
import json

import pytest

import emo

TASKS = {"tasks": [{"name": "go", "type": "multiple_choice", "data": "d.jsonl", "validation": "d.jsonl", "by": "d",
                    "prompt": "{q}", "normalisation": ["byte", "unconditional"]},
                   {"name": "say", "type": "generation", "data": "d.jsonl", "prompt": "{q}", "answer": "q",
                    "max_tokens": 2}]}
LINES = [{"q": "river bridge", "choices": ["water", "oven"], "answer": 0, "d": "a"},
         {"q": "flour butter", "choices": ["tide", "bread", "fish"], "answer": 1, "d": "b"}]


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "tasks.json").write_text(json.dumps(TASKS))
    return emo.Tasks(tmp_path / "tasks.json")


def test_what_a_set_holds(tasks, tmp_path):
    assert [t.name for t in tasks] == ["go:a", "go:b", "say"]
    assert tasks[0].metrics == ("accuracy_byte", "accuracy_unconditional") and tasks[-1].type == emo.TaskType.GENERATION
    assert tasks.groups == [emo.TaskGroup("go", (0, 1), False)]
    assert tasks.prompt(1, 0) == "flour butter" and tasks.continuation(1, 0, 2) == " fish"
    again = emo.Tasks.from_json(json.dumps(TASKS), root=tmp_path, limit=1)
    assert len(again) == 3 and again[0] == tasks[0] and again[2].items == 1
    with pytest.raises(IndexError):
        tasks[3]
    with pytest.raises(emo.RangeError):
        tasks.prompt(0, 5)
    with pytest.raises(emo.FormatError, match="unknown key"):
        emo.Tasks.from_json('{"task": []}', root=tmp_path)


def test_a_run(tasks, trained):
    mask = emo.select.select(trained, method="random", keep=4, seed=9)
    seen = []
    results = tasks.run(trained, keep=[0, 5], method="random", random=2, seed=3, masks=[mask],
                        progress=lambda phase, done, total: seen.append((phase, done, total)) and None)
    assert [c.kind for c in results.columns] == [emo.TaskColumnKind.ALL, emo.TaskColumnKind.RANDOM,
                                                 emo.TaskColumnKind.MASK]
    assert results.columns[1].draws == 2 and results.columns[1].share == 0.5
    assert seen[-1] == ("evaluate tasks", 16, 16)
    item = results.item(1, 0, 0)
    assert len(item.logprobs) == 3 and len(item.unconditional) == 3 and item.source == "d.jsonl" and item.line == 2
    assert results.score(1).value == float(item.chosen == item.answer) == item.value
    assert results.group(0).value == (results.score(0).value + results.score(1).value) / 2
    assert results.item(2, 0, 0).text is not None and results.item(2, 0, 0).logprobs == ()
    assert results.mask(0, 0) is None and results.mask(0, 2) == mask
    assert results.mask(0, 1) == emo.select.select(trained, method="random", keep=5, seed=3)
    tasks.close()
    assert results.item(1, 1, 0).tokens == item.tokens  # results keep their set
    with pytest.raises(emo.RangeError):
        results.score(3)


def test_wrong_options(tasks, trained):
    with pytest.raises(TypeError, match="list of emo.Mask"):
        tasks.run(trained, masks=[1])
    with pytest.raises(TypeError, match="no option 'n_keep'"):
        tasks.run(trained, n_keep=1)
    with pytest.raises(emo.Cancelled):
        tasks.run(trained, progress=lambda *_: True)
