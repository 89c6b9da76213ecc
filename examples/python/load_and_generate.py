#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads a model (all of it, or the experts of a mask) and continues a sentence.

    python3 load_and_generate.py MODEL "A fever in small children" [MASK]
"""
import sys

import emo


def main(folder, prompt, mask=None):
    subset = emo.Mask.load(mask) if mask else None  # other experts are never read
    with emo.load(folder, subset=subset) as model:
        info = model.info
        print("%d of %d parameters loaded" % (info.loaded, info.parameters), file=sys.stderr)
        print(prompt, end="")
        for piece in model.generate(prompt, tokens=60):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except emo.Error as error:
        sys.exit("%s: %s" % (type(error).__name__, error))
