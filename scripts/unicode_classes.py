#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes src/text/classes.c: which characters are letters, numbers and white space.

usage: scripts/unicode_classes.py > src/text/classes.c

The table's Unicode version is the one of the module unicodedata2 (pip install unicodedata2==16.0.0), or of Python's own
unicodedata where that is missing. It is the version that the regular expressions of Hugging Face's tokenizers know;
tests/e2e/compare_tokenizers.py says when they have moved on.
"""
try:
    import unicodedata2 as data
except ImportError:
    import unicodedata as data

SPACES = {0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, *range(9, 14), 0x20, *range(0x2000, 0x200B)}


def class_of(c):
    return 3 if c in SPACES else {"L": 1, "N": 2}.get(data.category(chr(c))[0], 0)


def rows(items, width, form):
    for i in range(0, len(items), width):
        print("    " + ", ".join(form.format(x) for x in items[i:i + width]) + ",")


runs = []
for c in range(0x110000):
    if not runs or runs[-1] & 3 != class_of(c):
        runs.append(c << 2 | class_of(c))
pages = [max(i for i, r in enumerate(runs) if r >> 2 <= page << 8) for page in range(257)]

print("""/* SPDX-License-Identifier: Apache-2.0 */
/* Written by scripts/unicode_classes.py from Unicode %s; do not edit. */
#include "text/classes.h"

/* clang-format off */
const char emo__unicode_version[] = "%s";

/* Runs of characters of one class: the first character << 2 | EMO__CLASS_*. */
const uint32_t emo__class_runs[EMO__CLASS_RUNS] = {""" % (data.unidata_version, data.unidata_version))
rows(runs, 12, "0x{:06x}")
print("""};

/* The run that holds the first character of each page of 256, up to U+10000. */
const uint16_t emo__class_pages[257] = {""")
rows(pages, 20, "{}")
print("};\n/* clang-format on */")
assert len(runs) == 1610, f"EMO__CLASS_RUNS must be {len(runs)}"
