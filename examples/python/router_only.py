#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""EMO's router inside another program: it learns to send two kinds of tokens to experts of their own.

The "experts" here are numbers: the host computes with the weights that the router gives, and hands their gradient back.

    python3 router_only.py
"""
import array
import random

import emo

HIDDEN, EXPERTS, TOKENS = 8, 6, 64
draw = random.Random(0)


def batch():
    """Two documents of different kinds, each around a direction of its own: x [tokens, hidden], and the kinds."""
    kinds = [int(t >= TOKENS // 2) for t in range(TOKENS)]
    x = [draw.gauss(0, 0.3) + (2.0 if i % 2 == kind else 0.0) for kind in kinds for i in range(HIDDEN)]
    return array.array("f", x), kinds


def main():
    router = emo.Router(hidden=HIDDEN, experts=EXPERTS, top_k=2, balance_weight=0.05)
    router.weights = weights = array.array("f", [draw.gauss(0, 0.1) for _ in range(EXPERTS * HIDDEN)])
    first = last = 0.0
    for step in range(200):
        x, kinds = batch()
        routing = router.forward(x, documents=[0, TOKENS // 2, TOKENS], pool="uniform:2:6", step=step,
                                 first_document=2 * step)
        # Experts 0 to 2 serve the first kind, 3 to 5 the second: the loss is the weight that goes to the others.
        wrong = [[float((expert >= 3) != bool(kind)) for expert in row] for row, kind in zip(routing.indices, kinds)]
        d_weights = array.array("f", [w / TOKENS for row in wrong for w in row])
        loss = sum(d * w for d, w in zip(d_weights, (w for row in routing.weights for w in row)))
        dw = emo.Array("f32", (EXPERTS, HIDDEN))
        router.backward(routing, d_weights, dw=dw)
        for i, gradient in enumerate(g for row in dw for g in row):
            weights[i] -= 1.0 * gradient
        router.weights = weights
        first, last = first or loss, loss
        if step % 50 == 0 or step == 199:
            print("step %3d: %.3f of the weight goes wrong, balance loss %.3f" % (step, loss, routing.balance_loss))
    assert last < first / 2


if __name__ == "__main__":
    main()
