# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest

import emo


@pytest.fixture
def pair():
    return emo.Mask([5, 0, 5], 1, [[0, 1], [], [2]]), emo.Mask([5, 0, 5], [1, 0, 1], [[1, 3], [], [0, 2]])


def test_a_mask_is_a_set_of_pairs(pair):
    a, b = pair
    assert a.layers == [(0, 1, 4), (), (2, 4)] and a[0] == (0, 1, 4) and a[-1] == (2, 4)
    assert len(a) == len(list(a)) == 5 and list(a)[0] == (0, 0)
    assert (0, 1) in a and (0, 2) not in a and (7, 0) not in a
    assert set(a | b) == set(a) | set(b)
    assert set(a & b) == set(a) & set(b)
    always = {(0, 4), (2, 4)}
    assert set(a - b) == (set(a) - set(b)) | always
    assert set(a ^ b) == (set(a) ^ set(b)) | always
    everything = set(emo.Mask([5, 0, 5], 1))
    assert set(~a) == (everything - set(a)) | always
    assert a.union(b) == a | b and a == a.copy() and a != b


def test_order(pair):
    a, b = pair
    assert a <= (a | b) and (a & b) <= a and a < (a | b) and not a < a and (a | b) >= a and (a | b) > b
    assert not a <= b


def test_shape_and_changes(pair):
    a, _ = pair
    assert a.n_layers == 3 and a.experts == [5, 0, 5] and a.shared == [1, 0, 1] and a.count(0) == 3
    assert a.is_always(0, 4) and not a.is_always(0, 0)
    copy = a.copy()
    copy.add(0, 3)
    copy.discard(0, 0)
    assert copy[0] == (1, 3, 4) and a[0] == (0, 1, 4)
    with pytest.raises(emo.InvalidArgument):
        copy.discard(0, 4)
    with pytest.raises(emo.InvalidArgument):
        copy.add(0, 9)
    with pytest.raises(IndexError):
        copy[3]
    with pytest.raises(TypeError):
        5 in copy
    with pytest.raises(TypeError):
        hash(copy)
    with pytest.raises(TypeError):
        copy | {1}
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(copy)


def test_always_active():
    a = emo.Mask([6, 6], 0, [[], [1]], always=[[2], [0, 5]])
    assert a.layers == [(2,), (0, 1, 5)] and a.is_always(0, 2) and not a.is_always(0, 1)


def test_json_and_files(pair, tmp_path):
    a, b = pair
    assert emo.Mask.from_json(a.to_json()) == a
    a.save(tmp_path / "a.json")
    assert emo.Mask.load(tmp_path / "a.json") == a
    with pytest.raises(emo.FormatError):
        emo.Mask.from_json("[]")
    with pytest.raises(FileNotFoundError):
        emo.Mask.load(tmp_path / "absent.json")


def test_other_shapes_do_not_mix(pair):
    with pytest.raises(emo.Mismatch):
        pair[0] | emo.Mask([4, 0, 5], 1)
    assert pair[0] != emo.Mask([4, 0, 5], 1)
    with pytest.raises(ValueError, match="keep has 1 layers"):
        emo.Mask([4, 4], 1, [[0]])


def test_pools():
    for words in ("none", "fixed:3", "uniform:4:32", "scheduled:2:100", "prompt:7"):
        assert str(emo.Pool(words)) == words
    assert str(emo.Pool.uniform(4, 32)) == "uniform:4:32" and str(emo.Pool.fixed(3)) == "fixed:3"
    assert str(emo.Pool.none()) == "none" and str(emo.Pool.scheduled(2, 100)) == "scheduled:2:100"
    assert emo.Pool.mass(0.5, 2, 8).kind == emo.PoolKind.MASS
    assert emo.Pool.from_prompt(7).scope == emo.PoolScope.PROMPT
    assert emo.Pool.table([[1, 2], [3, 4]]).kind == emo.PoolKind.TABLE
    pool = emo.Pool.fixed(3)
    pool.scope = "row"
    assert pool.scope == emo.PoolScope.ROW and pool.set_forced(1).set_eval_pool(2) is pool
    with pytest.raises(emo.RangeError):
        emo.Pool.fixed(0)
    with pytest.raises(emo.InvalidArgument, match="uniform"):
        emo.Pool("large")
    with pytest.raises(ValueError):
        pool.scope = "town"
    with pytest.raises(ValueError, match="as many documents"):
        emo.Pool.table([[1], [1, 2]])
