# SPDX-License-Identifier: Apache-2.0
"""Arrays in and out: the buffer protocol, DLPack, numpy where it is there."""
import array
import gc
import sys
import weakref

import pytest

import emo
from emo import _dlpack
from emo.array import Array, borrow

try:
    import numpy
except ImportError:
    numpy = None
needs_numpy = pytest.mark.skipif(numpy is None, reason="numpy is not installed")


def test_array():
    a = Array("f32", (2, 3))
    a.view[1, 2] = 5.0
    assert a.tolist() == [[0, 0, 0], [0, 0, 5]] and a[1].tolist() == [0, 0, 5] and a[1, 2] == 5.0 and a[-1][-1] == 5.0
    assert (a.ndim, a.size, a.nbytes, len(a), a.dtype) == (2, 6, 24, 2, "f32")
    assert [row.tolist() for row in a[1:]] == [[0, 0, 5]] and a[1].address == a.address + 12
    copy = a.copy()
    copy.view[0, 0] = 1.0
    assert a[0, 0] == 0.0 and len(a.tobytes()) == 24 and "f32" in repr(a)
    with pytest.raises(IndexError):
        a[2]
    with pytest.raises(IndexError):
        a[::2]
    empty = Array("i32", (0,))
    assert empty.tolist() == [] and len(empty) == 0 and empty.tobytes() == b"" and Array("f32", (2, 0)).tolist() == [[], []]
    if sys.version_info >= (3, 12):
        assert memoryview(a).tolist() == a.tolist()


def test_views_keep_the_memory():
    a = Array("i32", (1000,))
    a.view[999] = 7
    view, row = a.view, a[990:]
    del a
    gc.collect()
    assert view[999] == 7 and row[9] == 7


def test_borrowing_shares_what_fits_and_copies_what_does_not():
    floats = array.array("f", [1, 2, 3])
    assert borrow(floats, "f32", "x").address == floats.buffer_info()[0]
    readonly = memoryview(floats.tobytes()).cast("f")
    assert borrow(readonly, "f32", "x").size == 3
    assert borrow(readonly, "f32", "x").owner == readonly
    assert borrow(array.array("H", [1, 65535]), "i32", "x").owner.tolist() == [1, 65535]
    doubles = borrow(array.array("d", [1, 2]), "f32", "x")
    assert doubles.owner.tolist() == [1.0, 2.0]
    assert borrow([[1, 2], [3, 4]], "f32", "x").shape == (2, 2) and borrow(range(4), "i32", "x").size == 4
    assert borrow((i for i in range(3)), "i64", "x").owner.tolist() == [0, 1, 2]
    strided = memoryview(floats)[::2]
    assert borrow(strided, "f32", "x").owner.tolist() == [1.0, 3.0]
    for bad, error in ((["a"], TypeError), ([[1], [1, 2]], ValueError), (5, TypeError), ([1.5], None)):
        if error is not None:
            with pytest.raises(error, match="x"):
                borrow(bad, "i32", "x")
    with pytest.raises(TypeError, match="whole"):
        borrow([1.5], "i32", "x")
    with pytest.raises(ValueError, match="x"):
        borrow([2**40], "i32", "x")
    with pytest.raises(TypeError, match="writable f32"):
        borrow(array.array("d", [1]), "f32", "x", writable=True)


def test_dlpack_round_trip_shares_memory():
    a = Array("f32", (2, 3))
    b = emo.from_dlpack(a)
    b.view[1, 1] = 4.0
    assert a[1, 1] == 4.0 and b.address == a.address and b.shape == (2, 3)
    assert a.__dlpack_device__() == (1, 0)
    before = len(_dlpack._alive)
    gone = weakref.ref(a)
    del a
    gc.collect()
    assert gone() is not None and b[1, 1] == 4.0  # the capsule keeps it
    del b
    gc.collect()
    assert gone() is None and len(_dlpack._alive) == before - 1


def test_an_unused_capsule_gives_its_memory_back():
    a = Array("i64", (3,))
    before = len(_dlpack._alive)
    capsule = a.__dlpack__()
    assert len(_dlpack._alive) == before + 1
    del capsule
    gc.collect()
    assert len(_dlpack._alive) == before
    with pytest.raises(BufferError):
        emo.from_dlpack(object())


def test_read_only_memory_is_given_as_a_copy(data):
    tokens = data[0].tokens
    shown = emo.from_dlpack(tokens)
    shown.view[0] += 1
    assert tokens[0] == shown[0] - 1


@needs_numpy
def test_numpy_shares_memory(trained, data):
    logits = trained.logits([1, 2, 3])
    a = numpy.asarray(logits)
    assert a.dtype == numpy.float32 and a.shape == logits.shape and a.ctypes.data == logits.address
    a[0, 0] = 3.5
    assert logits[0, 0] == 3.5
    tokens = data[0].tokens.numpy()
    assert not tokens.flags.writeable and tokens.tolist() == data[0].tokens.tolist()
    pointer = logits.address
    del logits
    gc.collect()
    assert a.ctypes.data == pointer and a[0, 0] == 3.5


@needs_numpy
def test_numpy_goes_in(trained, tokenizer):
    ids = numpy.array([1, 2, 3], dtype=numpy.int32)
    assert borrow(ids, "i32", "x").address == ids.ctypes.data
    expected = trained.logits([1, 2, 3]).tobytes()
    for kind in (numpy.int32, numpy.int64, numpy.uint8):
        assert trained.logits(numpy.array([1, 2, 3], dtype=kind)).tobytes() == expected
    assert tokenizer.decode(ids) == tokenizer.decode([1, 2, 3])
    router = emo.Router(hidden=4, experts=6, top_k=2)
    router.weights = numpy.random.default_rng(1).normal(size=(6, 4)).astype("f4")
    x = numpy.random.default_rng(2).normal(size=(2, 5, 4)).astype("f4")
    routing = router.forward(x)
    assert routing.documents == 2
    dx = numpy.zeros((10, 4), "f4")
    router.backward(routing, numpy.ones((10, 2), "f4"), dx=dx)
    assert numpy.abs(dx).sum() > 0
    with pytest.raises(TypeError, match="writable f32 in one piece"):
        router.backward(routing, dx=numpy.zeros((10, 4)))
    flipped = numpy.asfortranarray(x.reshape(10, 4))
    assert router.forward(flipped).indices.tolist() == router.forward(x.reshape(10, 4)).indices.tolist()


@needs_numpy
def test_numpy_dlpack():
    a = Array("f32", (2, 2))
    b = numpy.from_dlpack(a)
    a.view[0, 1] = 9.0
    assert b[0, 1] == 9.0
    c = emo.from_dlpack(numpy.arange(6, dtype=numpy.int64).reshape(2, 3))
    assert c.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(BufferError, match="strided"):
        emo.from_dlpack(numpy.arange(6, dtype="f4").reshape(2, 3).T)


def test_torch_shares_memory():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    a = Array("f32", (2, 2))
    t = torch.from_dlpack(a)
    t[0, 1] = 9.0
    assert a[0, 1] == 9.0
    w = torch.randn(6, 4)
    router = emo.Router(hidden=4, experts=6, top_k=2)
    router.weights = w
    assert router.weights.tolist() == w.tolist()
