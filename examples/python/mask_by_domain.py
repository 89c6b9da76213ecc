#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chooses the experts of every domain from its documents, and shows what the masks share and what they keep.

    python3 mask_by_domain.py MODEL DOCUMENTS KEEP
"""
import sys

import emo


def main(folder, documents, keep):
    model = emo.load(folder)
    data = emo.Dataset(documents, model.tokenizer)
    masks = {name: model.select(data.filter(name), keep=int(keep)) for name in data.domains}
    names = sorted(masks)
    print("experts in both, of %d in each:" % len(masks[names[0]]))
    for a in names:
        print("%12s" % a, *("%5d" % len(masks[a] & masks[b]) for b in names))
    print("loss on the rows' domain with the columns' experts:")
    for a in names:
        part = data.filter(a)
        losses = ["%5.2f" % model.evaluate(part, mask=masks[b]).loss for b in names]
        print("%12s" % a, *losses, " all: %.2f" % model.evaluate(part).loss)
    for name in names:
        masks[name].save("%s.json" % name)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except emo.Error as error:
        sys.exit("%s: %s" % (type(error).__name__, error))
