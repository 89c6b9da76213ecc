# SPDX-License-Identifier: Apache-2.0
"""The router alone, on arrays, forward and backward; and communicators."""
import array
import random
import threading

import pytest

import emo

T, HIDDEN, E, K = 12, 4, 6, 3


def numbers(count, seed):
    draw = random.Random(seed)
    return array.array("f", [draw.uniform(-1, 1) for _ in range(count)])


@pytest.fixture
def router():
    made = emo.Router(hidden=HIDDEN, experts=E, shared=1, top_k=K, balance_weight=0.3, z_weight=0.01)
    made.weights = numbers(E * HIDDEN, 1)
    return made


def test_forward(router):
    x = numbers(T * HIDDEN, 2)
    routing = router.forward(x, documents=[0, 5, T], pool="fixed:3")
    assert (routing.tokens, routing.documents, routing.routed, routing.top_k) == (T, 2, 5, K)
    assert routing.indices.shape == (T, K) and routing.weights.shape == (T, K) and routing.usage.shape == (2, 5)
    assert routing.pool_size.tolist() == [3, 3] and routing.document_begin.tolist() == [0, 5, T]
    allowed = routing.allowed.tolist()
    for token in range(T):
        document = int(token >= 5)
        chosen = routing.indices[token].tolist()
        assert chosen[-1] == 5 and all(allowed[document][e] for e in chosen[:-1])
        assert sum(routing.scores[token]) == pytest.approx(1.0, abs=1e-5)
    assert [sum(row) for row in allowed] == [3, 3] and routing.counts[5] == T and sum(routing.counts) == T * K
    assert routing.counts_all.tolist() == routing.counts.tolist()[:5]
    assert routing.loss == pytest.approx(0.3 * routing.balance_loss + 0.01 * routing.z_loss)


def test_backward_is_the_gradient(router):
    """Finite differences of sum(d_weights * weights) + loss, where the choice of experts stays the same."""
    x, d = numbers(T * HIDDEN, 2), numbers(T * K, 3)
    dx, dw = emo.Array("f32", (T, HIDDEN)), emo.Array("f32", (E, HIDDEN))
    routing = router.forward(x, pool="fixed:3")
    router.backward(routing, d, dx=dx, dw=dw)

    def value(at, step):
        moved = array.array("f", x)
        moved[at] += step
        now = router.forward(moved, pool="fixed:3")
        if now.indices.tolist() != routing.indices.tolist():
            return None
        return now.loss + sum(a * b for a, b in zip(d, [w for row in now.weights for w in row]))

    checked = 0
    for at in range(0, T * HIDDEN, 5):
        high, low = value(at, 1e-2), value(at, -1e-2)
        if high is not None and low is not None:
            # f32 sums of order 1: differences over 0.02 carry about 1e-5 of rounding and the third derivative.
            assert dx[at // HIDDEN][at % HIDDEN] == pytest.approx((high - low) / 2e-2, abs=2e-3)
            checked += 1
    assert checked > 4 and any(v != 0 for row in dw for v in row) and dw[5].tolist() == [0.0] * HIDDEN


def test_gradients_are_added(router):
    x = numbers(T * HIDDEN, 2)
    one, two = emo.Array("f32", (T, HIDDEN)), emo.Array("f32", (T, HIDDEN))
    router.backward(router.forward(x), dx=one)
    for _ in range(2):
        router.backward(router.forward(x), dx=two)
    assert [a * 2 for a in one.view.cast("B").cast("f")] == pytest.approx(list(two.view.cast("B").cast("f")))


def test_rows_ids_masks_and_modes(router):
    x = numbers(T * HIDDEN, 2)
    rows = router.forward(memoryview(x).cast("B").cast("f", (3, 4, HIDDEN)))
    assert rows.documents == 3
    ids = router.forward(x, documents=[0, 4, 8, T], document_ids=[7, 8, 9], pool="uniform:2:5", step=3)
    counted = router.forward(x, documents=[0, 4, 8, T], first_document=7, pool="uniform:2:5", step=3)
    assert ids.pool_size.tolist() == counted.pool_size.tolist()
    masked = router.forward(x, mask=emo.Mask([E], 1, [[0, 1, 2]]), mode="eval")
    assert {i for row in masked.indices for i in row} <= {0, 1, 2, 5} and masked.loss == 0.0
    table = router.forward(x, documents=[0, 5, T], pool=emo.Pool.table([[4, 2]]))
    assert table.pool_size.tolist() == [4, 2]


def test_copies_and_views(router):
    first = router.forward(numbers(T * HIDDEN, 2))
    kept = first.weights.tolist()
    router.forward(numbers(T * HIDDEN, 9))
    assert first.weights.tolist() == kept
    view = router.forward(numbers(T * HIDDEN, 9), copy=False)
    router.close()  # the view keeps the router's memory
    assert view.weights.shape == (T, K) and sum(view.scores[0]) == pytest.approx(1.0, abs=1e-5)


def test_an_older_routing_is_refused(router):
    old = router.forward(numbers(T * HIDDEN, 2))
    router.forward(numbers(T * HIDDEN, 2))
    with pytest.raises(emo.Mismatch):
        router.backward(old)


def test_weights_and_bias(router):
    assert router.weights.shape == (E, HIDDEN) and router.weights.readonly
    assert router.weights.tobytes() == numbers(E * HIDDEN, 1).tobytes()
    assert router.score_bias is None
    router.score_bias = [0.0, 0.0, 100.0, 0.0, 0.0]
    assert all(2 in row.tolist() for row in router.forward(numbers(T * HIDDEN, 2)).indices)
    router.update_score_bias(0.5)
    assert router.score_bias[2] == 99.5
    router.score_bias = None
    assert router.score_bias is None
    with pytest.raises(ValueError, match="weights has shape"):
        router.weights = [1.0, 2.0]


def test_wrong_arrays_are_named(router):
    x = numbers(T * HIDDEN, 2)
    routing = router.forward(x)
    with pytest.raises(ValueError, match="last axis must have 4"):
        router.forward(numbers(7, 1))
    with pytest.raises(TypeError, match="did you mean step"):
        router.forward(x, steps=1)
    with pytest.raises(TypeError, match="dx must be writable"):
        router.backward(routing, dx=bytes(T * HIDDEN * 4))
    with pytest.raises(TypeError, match="dx must be writable"):
        router.backward(routing, dx=[0.0] * (T * HIDDEN))
    with pytest.raises(ValueError, match="document_ids"):
        router.forward(x, documents=[0, T], document_ids=[1, 2])
    with pytest.raises(emo.InvalidArgument):
        router.forward(x, documents=[0, 5, 3])
    with pytest.raises(emo.RangeError, match="top_k"):
        emo.Router(hidden=4, experts=4, top_k=9)


def test_always_active():
    router = emo.Router(hidden=HIDDEN, experts=E, top_k=3, always=[2, 4])
    router.weights = numbers(E * HIDDEN, 1)
    routing = router.forward(numbers(T * HIDDEN, 2))
    assert all(set(row.tolist()) >= {2, 4} for row in routing.indices)


def test_ranks_share_counts():
    def work(comm):
        router = emo.Router(hidden=HIDDEN, experts=E, shared=1, top_k=K, comm=comm)
        router.weights = numbers(E * HIDDEN, 1)
        routing = router.forward(numbers(T * HIDDEN, comm.rank + 1), first_document=comm.rank)
        return routing.counts.tolist()[:5], routing.counts_all.tolist()

    (a, all_a), (b, all_b) = emo.comm.run(2, work)
    assert all_a == all_b == [x + y for x, y in zip(a, b)]


def test_collectives():
    def work(comm):
        numbers = array.array("f", [comm.rank + 1.0, 10.0])
        comm.all_reduce_sum(numbers)
        longs = emo.Array("i64", (2,))
        comm.all_reduce_sum(longs)
        text = bytearray(b"abc" if comm.rank == 1 else b"...")
        comm.broadcast(text, root=1)
        comm.barrier()
        return numbers.tolist(), bytes(text), comm.size

    assert emo.comm.run(3, work) == [([6.0, 30.0], b"abc", 3)] * 3
    single = emo.Comm.single()
    single.barrier()
    assert (single.rank, single.size) == (0, 1)
    with pytest.raises(TypeError, match="writable"):
        single.all_reduce_sum([1.0])
    with pytest.raises(TypeError, match="f32, f64"):
        single.all_reduce_sum(bytearray(4))


def test_a_rank_that_fails_stops_the_others():
    def work(comm):
        if comm.rank == 1:
            raise KeyError("mine")
        comm.barrier()

    with pytest.raises(KeyError, match="mine"):
        emo.comm.run(3, work)
    comms = emo.Comm.local(2)
    comms[0].set_timeout(0.05)
    with pytest.raises(ConnectionError):
        comms[0].barrier()


def test_a_communicator_of_ones_own():
    calls = []

    class Echo(emo.CommPlugin):
        def all_reduce_sum(self, address, count, dtype):
            calls.append(("sum", count, dtype))

        def barrier(self):
            raise emo.CommError("the wire is cut")

        def destroy(self):
            calls.append("destroy")

    comm = emo.Comm(Echo(), 0, 2)
    comm.all_reduce_sum(array.array("d", [1.0]))
    assert calls == [("sum", 1, emo.Dtype.F64)]
    with pytest.raises(emo.CommError, match="the wire is cut"):
        comm.barrier()
    comm.close()
    assert calls[-1] == "destroy"


def test_busy():
    """A router that is routing on one thread refuses another one."""
    router = emo.Router(hidden=64, experts=32, top_k=4)
    router.weights = numbers(32 * 64, 1)
    x = array.array("f", numbers(64, 1) * 20000)
    found, stop = [], threading.Event()

    def other():
        while not stop.is_set():
            try:
                router.update_score_bias(0.0)
            except emo.Busy as error:
                found.append(error)
                return
            except emo.Error:
                pass

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(200):
            try:
                router.forward(x)
            except emo.Busy as error:
                found.append(error)
            if found:
                break
    finally:
        stop.set()
        thread.join()
    assert found and isinstance(found[0], RuntimeError)
