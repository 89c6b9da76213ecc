# SPDX-License-Identifier: Apache-2.0
"""Markup to plain text: HTML, man pages, Perl's pod. Paragraphs come out apart by one empty line."""

import re
from html.parser import HTMLParser

_SKIP = {"script", "style", "head", "nav", "svg"}
_BLOCK = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ul", "ol", "dl", "dt", "dd", "pre", "table", "tr",
          "blockquote", "br", "hr", "section", "article", "body", "header", "footer"}
_VOID = {"br", "hr", "img", "meta", "link", "input", "col", "wbr"}


def _paragraphs(text):
    return re.sub(r"\n\s*\n", "\n\n", text).strip("\n")


class _Html(HTMLParser):
    """Text of the body. An element whose class is in `drop` is left out with everything in it."""

    def __init__(self, drop):
        super().__init__(convert_charrefs=True)
        self.drop, self.out, self.skipping, self.stack, self.pre = drop, [], 0, [], 0

    def handle_starttag(self, tag, attrs):
        if tag in _VOID:
            if tag in _BLOCK and not self.skipping:
                self.out.append("\n" if tag == "br" else "\n\n")
            return
        classes = set((dict(attrs).get("class") or "").split())
        hidden = tag in _SKIP or bool(classes & self.drop)
        self.stack.append((tag, hidden))
        self.skipping += hidden
        self.pre += tag == "pre"
        if tag in _BLOCK:
            self.out.append("\n\n")

    def handle_endtag(self, tag):
        if tag not in (name for name, _ in self.stack):
            return
        while self.stack:
            name, hidden = self.stack.pop()
            self.skipping -= hidden
            self.pre -= name == "pre"
            if name == tag:
                break
        if tag in _BLOCK:
            self.out.append("\n\n")

    def handle_data(self, data):
        if not self.skipping:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def from_html(text, drop=()):
    parser = _Html(set(drop))
    parser.feed(text)
    return _paragraphs("".join(parser.out))


_ROFF_NAMES = {"aq": "'", "dq": '"', "lq": '"', "rq": '"', "oq": "'", "cq": "'", "em": "--", "en": "-", "bu": "*",
               "co": "(C)", "tm": "(TM)", "rs": "\\", "ha": "^", "ti": "~", "ga": "`", "at": "@", "sh": "#",
               "Do": "$", "mu": "x", "+-": "+-", "<=": "<=", ">=": ">=", "->": "->", "mc": "u", "Fo": "\u00ab",
               "Fc": "\u00bb", "fo": "<", "fc": ">", "ba": "|", "or": "|", "sq": "*", "if": "inf", "de": "deg"}
_ROFF_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", ",": "\u0327", "~": "\u0303", "o": "\u030a"}
_ROFF_NO_TEXT = {"de", "am", "ig", "TS", "EQ"}
_ROFF_FONTS = {"B", "I", "R", "BI", "BR", "IB", "IR", "RB", "RI", "SM", "SB"}


def _roff_name(match):
    name = match.group(1)
    if name in _ROFF_NAMES:
        return _ROFF_NAMES[name]
    if len(name) == 2 and name[0] in _ROFF_ACCENTS and name[1].isalpha():
        return name[1] + _ROFF_ACCENTS[name[0]]
    return ""


def _roff_escapes(line):
    line = re.sub(r'\\".*', "", line)
    line = re.sub(r"\\f(\[[^\]]*\]|\(..|.)", "", line)
    line = re.sub(r"\\s(\[[^\]]*\]|[-+]?\d)", "", line)
    line = re.sub(r"\\\*(\[[^\]]*\]|\(..|.)", "", line)
    line = re.sub(r"\\[mMFknzhvwoO]('[^']*'|\[[^\]]*\]|\(..)", "", line)
    line = re.sub(r"\\\[u([0-9A-Fa-f]{4,6})\]", lambda m: chr(int(m.group(1), 16)), line)
    line = re.sub(r"\\\[([^\]]*)\]", _roff_name, line)
    line = re.sub(r"\\\((..)", _roff_name, line)
    return re.sub(r"\\(.)", lambda m: {"-": "-", "e": "\\", " ": " ", "~": " ", "0": " "}.get(
        m.group(1), "" if m.group(1) in "&|^%:/,cdut{}p" else m.group(1)), line)


def _roff_words(rest):
    return [a[1:-1].replace('""', '"') if a.startswith('"') else a
            for a in re.findall(r'"(?:[^"]|"")*"|[^\s"]\S*', rest)]


def from_man(text):
    """A man page in man(7) macros; pages in mdoc(7) give an empty string."""
    out, waiting, skip_until, verbatim = [], [], None, False

    def flush():
        if waiting:
            out.append(" ".join(waiting))
            waiting.clear()

    if re.search(r"^\.(Dd|Sh)\b", text, re.M):
        return ""
    for raw in text.split("\n"):
        if skip_until:
            if raw.startswith(skip_until):
                skip_until = None
            continue
        if raw[:1] in ".'":
            match = re.match(r"[.']\s*([A-Za-z]+)\s*(.*)", raw)
            if not match:
                continue
            name, rest = match.group(1), _roff_escapes(match.group(2)) if '"' not in match.group(2)[:2] else ""
            words = [_roff_escapes(word) for word in _roff_words(match.group(2))]
            if name in _ROFF_NO_TEXT:
                skip_until = {"TS": ".TE", "EQ": ".EN"}.get(name, "..")
            elif name in ("nf", "EX"):
                flush()
                verbatim = True
            elif name in ("fi", "EE"):
                verbatim = False
                out.append("")
            elif name in ("SH", "SS"):
                flush()
                out += ["", " ".join(words), ""]
            elif name in ("PP", "P", "LP", "TP", "IP", "HP", "TQ", "sp", "RS", "RE"):
                flush()
                out.append("")
                if name == "IP" and words and words[0] not in ("*", "-", ""):
                    waiting.append(words[0])
            elif name == "br":
                flush()
            elif name in _ROFF_FONTS:
                joined = ("" if len(name) == 2 and name not in ("SM", "SB") else " ").join(words) or rest
                (out if verbatim else waiting).append(joined)
            elif name in ("UR", "MT", "URL"):
                waiting += words[:1]
            continue
        line = _roff_escapes(raw).rstrip()
        if verbatim:
            out.append(line)
        elif not line:
            flush()
            out.append("")
        else:
            waiting.append(line)
    flush()
    return _paragraphs("\n".join(out))


def from_pod(text):
    """Perl's pod: headings, paragraphs and verbatim blocks; formatting codes lose their letters."""
    out, inside, skip = [], True, False
    for block in re.split(r"\n\s*\n", text):
        if re.match(r"=(begin|for)\b", block):
            skip = block.startswith("=begin")
        elif block.startswith("=end"):
            skip = False
        elif block.startswith("=cut"):
            inside = "\n=" in block
        elif block.startswith("="):
            inside = True
            words = block.split(None, 1)
            if words[0] in ("=encoding", "=over", "=back", "=pod") or skip:
                continue
            if len(words) > 1 and words[1] not in ("*", "-"):
                out.append(words[1])
        elif inside and not skip:
            out.append(block if block[:1] in " \t" else re.sub(r"\s*\n\s*", " ", block))
    text = "\n\n".join(out)
    for _ in range(3):
        text = re.sub(r"[BCIFSXZ]<<+ (.*?) >>+", r"\1", text, flags=re.S)
        text = re.sub(r"L<(?:([^<>|]*)\|)?([^<>]*)>", lambda m: m.group(1) or m.group(2), text)
        text = re.sub(r"[BCIFS]<([^<>]*)>", r"\1", text)
    text = re.sub(r"[XZ]<[^<>]*>", "", text)
    return text.replace("E<lt>", "<").replace("E<gt>", ">").replace("E<sol>", "/").replace("E<verbar>", "|")
