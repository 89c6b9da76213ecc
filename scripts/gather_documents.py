#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Gathers real documents of a dozen labelled domains from what a Debian machine has installed.

Writes train.jsonl, valid.jsonl and test.jsonl to a folder, one {"id", "domain", "source", "text"} a line: pieces of
500 bytes to 8 KB cut at natural borders, NFC, without near duplicates, split by the hash of their text (90/5/5), about
equally many bytes a domain. The same packages give the same files. scripts/documents.txt lists packages worth having.
"""

import argparse
import glob
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from plain_text import from_html, from_man, from_pod  # noqa: E402

SHORTEST, TARGET, LONGEST = 500, 3000, 8000
ASCII = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: "--", 0x2026: "...", 0xA0: " ",
         0x202F: " ", 0xAD: None, 0x200B: None, 0xFEFF: None, 0xB6: None}


class Machine:
    """Files below one or more roots (a root is what "/" means); of a file in several of them the first counts."""

    def __init__(self, roots):
        self.roots = roots

    def files(self, *patterns):
        found = {}
        for root in (root.rstrip("/") for root in self.roots):
            for pattern in patterns:
                for path in glob.glob(root + pattern):
                    if os.path.isfile(path):
                        found.setdefault(path[len(root):], path)
        # In the order of their names' hashes, so that reading may stop early without favouring a part.
        return [found[name] for name in sorted(found, key=lambda n: hashlib.sha256(n.encode()).digest())]

    def one(self, pattern):
        return next(iter(self.files(pattern)), None)


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def name_of(path):
    return re.sub(r"\.gz$", "", os.path.basename(path))


# Every source yields (name, text), the text in paragraphs with an empty line between them.

def bible(machine):
    program, data = machine.one("/usr/bin/bible"), machine.one("/usr/lib/bible.data")
    if not program or not data:
        return
    run = subprocess.run([program, "-l100000", "-p", os.path.dirname(data), "gen1:1-rev22:21"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, env={"PATH": "/usr/bin:/bin"})
    chapter = re.split(r"\n\n(?=[1-3A-Z][A-Za-z ]+ \d+\n\n)", "\n" + run.stdout.decode("utf-8", "replace"))
    for text in chapter:
        title, _, verses = text.strip().partition("\n")
        verses = [re.sub(r"^\s*\d+\s+", "", verse) for verse in verses.split("\n") if verse.strip()]
        # Verses in paragraphs of five read like prose and can be cut.
        yield title, "\n\n".join(" ".join(verses[i:i + 5]) for i in range(0, len(verses), 5))


def anarchism(machine):
    for path in machine.files("/usr/share/doc/anarchism/html/sec*.html"):
        yield name_of(path), from_html(read(path))


def jargon(machine):
    for path in machine.files("/usr/share/info/jargon.info*"):
        together = []
        for node in read(path).split("\x1f")[1:]:
            body = re.sub(r"[{}]", "", node.strip().partition("\n")[2])
            if "* Menu:" not in body:
                together += [" ".join(part.split()) for part in re.split(r"\n\s*\n", body) if part.strip()]
        yield name_of(path), "\n\n".join(together)


def database(machine):
    for path in machine.files("/usr/share/doc/postgresql-doc-*/html/*.html"):
        if not re.match(r"(release|features|errcodes|bookindex|acronyms|biblio|index|sql-keywords)", name_of(path)):
            yield name_of(path), from_html(read(path), {"navheader", "navfooter", "toc"})


def debian(machine):
    for path in machine.files("/usr/share/doc/debian-policy/policy.html/ch-*.html",
                              "/usr/share/developers-reference/*.html", "/usr/share/debian-reference/ch*.html",
                              "/usr/share/doc/debian/FAQ/*.en.html"):
        if name_of(path) not in ("developers-reference.html", "index.html", "search.html", "genindex.html"):
            yield name_of(path), from_html(read(path), {"navheader", "navfooter", "toc", "related", "headerlink",
                                                        "sphinxsidebar", "toctree-wrapper"})


def perl(machine):
    for path in machine.files("/usr/share/perl/5.*/pod/*.pod"):
        if not re.match(r"perl(5\d*delta|toc|uniprops|api|intern|modlib|cn|jp|ko|tw|gpl|artistic|hist)\b",
                        name_of(path)):
            yield name_of(path), from_pod(read(path))


def man(machine, folder):
    for path in machine.files(*(f"/usr/share/man/{folder}man{section}/*" for section in "12345678")):
        text = read(path)
        if len(text) > 1500 and not text.startswith(".so"):
            yield folder.rstrip("/") + " " + name_of(path), from_man(text)


def library_calls(machine):
    for path in machine.files("/usr/share/man/man2/*", "/usr/share/man/man3/*"):
        if not path.endswith((".3perl.gz", ".3pm.gz", ".3ssl.gz", ".3x.gz", ".3ncurses.gz")):
            yield name_of(path), from_man(read(path))


def code(paths, borders):
    for path in paths:
        text = read(path)
        if max(map(len, text.split("\n"))) < 200:
            # A border is marked by one empty line more, so that pieces begin at definitions.
            yield path.split("/usr/")[-1], re.sub(borders, r"\n\n\n\1", text, flags=re.M)


def python(machine):
    folders = [f"/usr/lib/python3*/{sub}*.py" for sub in ("", "asyncio/", "email/", "json/", "http/", "importlib/",
               "unittest/", "xml/*/", "logging/", "concurrent/*/", "multiprocessing/", "urllib/", "sqlite3/", "curses/")]
    return code(machine.files(*folders), r"\n+((?:@[^\n]*\n)*(?:async def|def|class) )")


def c(machine):
    folders = [f"/usr/include/{sub}*.h" for sub in ("", "linux/", "*-linux-gnu/bits/", "*-linux-gnu/sys/",
               "asm-generic/", "drm/", "rdma/", "sound/", "scsi/", "*-linux-gnu/asm/", "net*/", "rpc/", "arpa/")]
    return code(machine.files(*folders), r"\n\n+((?:/\*|struct |enum |static |typedef |#if))")


def licences(machine):
    for path in machine.files("/usr/share/common-licenses/*", "/usr/share/doc/*/copyright"):
        if os.path.islink(path):
            continue
        text = re.sub(r"^ \.$", "", read(path), flags=re.M)
        parts = ("\n".join(line.strip() for line in part.split("\n")) for part in re.split(r"\n\s*\n", text))
        # The lists of files and of holders are no prose.
        yield path.split("/usr/share/")[-1], "\n\n".join(
            part for part in parts if len(part) > 100 and not re.search(r"^Files:|^Copyright:|\u00a9|^License: \S+$|@", part, re.M))


DOMAINS = {"bible": bible, "anarchism": anarchism, "jargon": jargon, "database": database, "debian": debian,
           "perl": perl, "man": library_calls, "french": lambda m: man(m, "fr/"), "german": lambda m: man(m, "de/"),
           "python": python, "c": c, "licences": licences}


def clean(text):
    text = unicodedata.normalize("NFC", text.translate(ASCII)).replace("\r\n", "\n").replace("\t", "    ")
    text = "".join(ch for ch in text if ch == "\n" or (ch >= " " and ch not in "\x7f\ufffd"))
    return re.sub(r"\n{4,}", "\n\n\n", re.sub(r"[ \t]+$", "", text, flags=re.M)).strip()


def cut(text):
    """Pieces of about TARGET bytes: paragraphs together, new ones sooner where a stronger border (two empty lines) is."""
    pieces, piece, size = [], [], 0
    for strong in text.split("\n\n\n"):
        for index, part in enumerate(strong.split("\n\n")):
            part = part.strip("\n")
            length = len(part.encode()) + 2
            if not part.strip() or length > LONGEST:
                continue
            if size + length > LONGEST or size > TARGET or (index == 0 and size > TARGET * 2 // 3):
                pieces.append("\n\n".join(piece))
                piece, size = [], 0
            piece.append(part)
            size += length
    pieces.append("\n\n".join(piece))
    return [p for p in pieces if SHORTEST <= len(p.encode()) <= LONGEST]


def is_text(piece):
    """Tables, lists of names and rows of dots teach nothing."""
    letters = sum(ch.isalpha() for ch in piece)
    words = re.findall(r"\w+", piece.lower())
    return letters > 0.5 * len(piece.replace(" ", "").replace("\n", "")) and len(set(words)) > 0.15 * len(words) > 0


class Seen:
    """Says which pieces repeat earlier ones: over 30 % of a sample of their 8-word runs were there before."""

    def __init__(self):
        self.runs = set()

    def repeats(self, piece):
        words = re.findall(r"\w+", piece.lower())
        runs = {hash_of(" ".join(words[i:i + 8])) for i in range(max(1, len(words) - 7))}
        sample = {run for run in runs if run % 4 == 0} or runs
        old = len(sample & self.runs)
        if old > 0.3 * len(sample):
            return True
        self.runs |= sample
        return False


def hash_of(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def gather(machine, limit):
    """(domain, source, text) of every domain, each at most `limit` bytes, picked by hash so that no source dominates."""
    seen = Seen()
    for domain, source in DOMAINS.items():
        candidates, size = [], 0
        for name, text in source(machine):
            pieces = [p for p in cut(clean(text)) if is_text(p)]
            candidates += [(hashlib.sha256(p.encode()).hexdigest(), name, p) for p in pieces]
            size += sum(map(len, pieces))
            if size > 2 * limit:
                break
        size = 0
        for digest, name, piece in sorted(candidates):
            if size >= limit:
                break
            if not seen.repeats(piece):
                size += len(piece.encode())
                yield {"id": f"{domain}-{digest[:12]}", "domain": domain, "source": name, "text": piece}, digest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="folder to write train.jsonl, valid.jsonl and test.jsonl to")
    parser.add_argument("--bytes", type=int, default=1_200_000, help="at most this many a domain (default %(default)s)")
    parser.add_argument("--smallest", type=int, default=150_000, help="leave out domains smaller than this")
    parser.add_argument("--domains", type=int, default=7, help="fail (status 3) below this many (default %(default)s)")
    parser.add_argument("--root", action="append", help="look below this folder as if it were / (repeatable)")
    args = parser.parse_args()

    domains = {}
    for document, digest in gather(Machine(args.root or ["/"]), args.bytes):
        part = int(digest[:8], 16) % 100
        part = "train" if part < 90 else "valid" if part < 95 else "test"
        domains.setdefault(document["domain"], []).append((digest, part, document))
    sizes = {d: sum(len(doc["text"].encode()) for _, _, doc in docs) for d, docs in domains.items()}
    for domain in DOMAINS:
        size = sizes.get(domain, 0)
        used = "" if size >= args.smallest else "   (left out: too little here; see scripts/documents.txt)"
        print(f"{domain:<12}{len(domains.get(domain, [])):>6} documents {size:>9} bytes{used}")
        if used:
            domains.pop(domain, None)
    if len(domains) < args.domains:
        print(f"only {len(domains)} domains have enough text, {args.domains} are needed: "
              "install the packages of scripts/documents.txt", file=sys.stderr)
        return 3
    os.makedirs(args.out, exist_ok=True)
    for part in ("train", "valid", "test"):
        # Lines in the order of their hashes: the domains are mixed.
        rows = sorted((digest, doc) for docs in domains.values() for digest, p, doc in docs if p == part)
        with open(os.path.join(args.out, part + ".jsonl"), "w", encoding="utf-8") as file:
            for _, document in rows:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
