#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what the package says twice otherwise: the C headers, as Python data.

    bindings/python/generate.py            writes emo/_abi.py, emo/_structs.py, emo/enums.py and emo/options.py
    bindings/python/generate.py --check    says which of them is not what the headers say; exit status 1 then

The headers are regular (clang-format sees to it), so a few patterns read them; what they do not understand they name.
"""
import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include" / "emo"
LICENSE = "# SPDX-License-Identifier: Apache-2.0\n"
NOTE = "# Written by generate.py from the C headers. Do not edit.\n"

# Fields that are no options of a Python call: the binding fills them in, or another option stands for them.
HIDDEN = r"^(struct_size|reserved\w*|\w+_ctx|ctx|n_stop|n_keep|n_masks|n_always|keep_offsets|always_offsets)$"
# Parameters of the Python call by themselves.
PARAMETERS = {("emo_router_batch", name) for name in ("x", "n_documents", "document_begin", "document_ids")}
# Options that are something else in Python than their C type says.
SPECIAL = {
    ("emo_prune_options", "keep"): "Optional[Sequence[Sequence[int]]]",
    ("emo_router_options", "always"): "Sequence[int]",
    ("emo_session_options", "stop"): "Union[str, Sequence[str]]",
    ("emo_task_run_options", "keep"): "Sequence[int]",
    ("emo_task_run_options", "masks"): 'Sequence["Mask"]',
    ("emo_train_options", "on_step"): 'Callable[["StepMetrics"], object]',
}
PYTHON = {
    "int32_t": "int", "uint32_t": "int", "int64_t": "int", "uint64_t": "int", "size_t": "int", "float": "float",
    "double": "float", "const char *": "Optional[Path]", "emo_progress": "Optional[Progress]",
    "const emo_mask *": '"Optional[Mask]"', "const emo_pool_policy *": '"Union[Pool, str, None]"',
    "const emo_dataset *": '"Optional[Dataset]"', "emo_comm *": '"Optional[Comm]"',
    "emo_allocator": '"Optional[Allocator]"', "emo_log_sink": "Optional[Callable[[int, str], object]]",
    "emo_executor": '"Optional[Executor]"',
}


def headers():
    return sorted(INCLUDE.glob("*.h")) + [INCLUDE / "sys" / "bench.h", INCLUDE / "sys" / "comm.h"]


def squeeze(text):
    text = re.sub(r"\s*\n\s*\*(?!/)\s?", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def uncomment(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def c_type(text):
    """'const float * const *' and so on, with one way of writing each."""
    text = re.sub(r"\s+", " ", text.replace("*", " * ")).strip()
    text = re.sub(r"\* (const )?(?=\*)", "*", text)
    return re.sub(r"\*( const)?$", "*", text)


def declarator(text):
    """'const char *name' -> ('const char *', 'name'); also arrays and pointers to functions."""
    text = re.sub(r"\s+", " ", text).strip()
    pointer = re.match(r"^(.*?)\(\*(\w+)\)\((.*)\)$", text)
    if pointer:
        arguments = [declarator(a)[0] for a in split(pointer.group(3))]
        return "%s (*)(%s)" % (c_type(pointer.group(1)), ", ".join(arguments)), pointer.group(2)
    array = re.match(r"^(.*?)(\w+)\[(\d*)\]$", text)
    if array:
        if array.group(3):
            return "%s[%s]" % (c_type(array.group(1)), array.group(3)), array.group(2)
        return c_type(array.group(1) + "*"), array.group(2)
    name = re.match(r"^(.*?[\s*])(\w+)$", text)
    if not name or text in ("void",) or name.group(2) == "const":
        return c_type(text), ""
    return c_type(name.group(1)), name.group(2)


def split(arguments):
    parts, depth = [""], 0
    for c in arguments:
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip() not in ("", "void")]


class Api:
    def __init__(self):
        self.version = None
        self.structs, self.enums, self.functions, self.callbacks = {}, {}, {}, {}
        for path in headers():
            self.read(path.read_text(encoding="utf-8"))
        self.resolve()

    def read(self, text):
        version = re.search(r'EMO_VERSION_STRING "([^"]+)"', text)
        if version:
            self.version = version.group(1)
        if "EMO_STATUS_TABLE(X)" in text:
            table = re.search(r"#define EMO_STATUS_TABLE\(X\)(.*?)\n\n", text, re.S).group(1)
            rows = re.findall(r'X\((EMO_\w+), (-?\d+), "([^"]*)"\)', table)
            self.enums["emo_status"] = ("The result of a call.", [(n, int(v), t) for n, v, t in rows])
        text = re.sub(r"^#(?:.*\\\n)*.*$", "", text, flags=re.M)
        for doc, name, body in re.findall(r"(?:/\*\*((?:(?!\*/).)*)\*/\s*)?typedef struct (emo_\w+) \{(.*?)\n\} \2;", text,
                                          re.S):
            self.structs[name] = (squeeze(doc.strip("* \n")), self.fields(body))
        for doc, name, body in re.findall(
                r"(?:/\*\*((?:(?!\*/).)*)\*/\s*)?typedef int32_t (emo_\w+);\s*enum \{(.*?)\};", text, re.S):
            values = re.findall(r"(EMO_\w+) = (-?\d+),?\s*(?:/\*\*<(.*?)\*/)?", body, re.S)
            self.enums[name] = (squeeze(doc.strip("* \n")), [(n, int(v), squeeze(d)) for n, v, d in values])
        for result, name, arguments in re.findall(r"typedef ([^;{]*?)\(\*(emo_\w+)\)\(([^;]*)\);", text):
            kinds = [declarator(a)[0] for a in split(arguments)]
            self.callbacks[name] = "%s (*)(%s)" % (c_type(result), ", ".join(kinds))
        plain = uncomment(text)
        for decl in re.findall(r"EMO_API ([^;{]*);", plain):
            decl = squeeze(decl.replace("EMO_MUST_CHECK", ""))
            match = re.match(r"^(.*?)\b(emo_\w+)\((.*)\)$", decl)
            if not match:
                raise SystemExit("generate.py does not understand: " + decl)
            parameters = [declarator(a) for a in split(match.group(3))]
            self.functions[match.group(2)] = (c_type(match.group(1)), parameters)

    def fields(self, body):
        found = []
        body = re.sub(r"(/\*\*(?!<).*?\*/)", lambda m: m.group(1).replace(";", ","), body, flags=re.S)
        pattern = r"(?:/\*\*(?!<)(?P<above>.*?)\*/)?\s*(?P<decl>[\w][^;]*?);(?:\s*/\*\*<(?P<doc>.*?)\*/)?"
        body = re.sub(r"/\*\*<.*?\*/", lambda m: m.group(0).replace(";", "\0"), body, flags=re.S)
        for m in re.finditer(pattern, body, re.S):
            kind, name = declarator(m.group("decl"))
            found.append((name, kind, squeeze((m.group("doc") or m.group("above") or "")).replace("\0", ";")))
        return found

    def resolve(self):
        """Names of pointers to functions give way to what they stand for."""
        for name, kind in self.callbacks.items():
            for struct, (doc, fields) in self.structs.items():
                self.structs[struct] = (doc, [(f, kind if t == name else t, d) for f, t, d in fields])
                self.structs[struct] = (doc, [(f, t.replace(name, "void *") if "(*)" in t else t, d)
                                              for f, t, d in self.structs[struct][1]])


def camel(name):
    return "".join(part.capitalize() for part in name[len("emo_"):].split("_"))


def members(values):
    """Constants without what they all begin with."""
    names = [n for n, _, _ in values]
    if len(names) == 1:
        head = names[0].rsplit("_", 1)[0] + "_"
    else:
        first, last = min(names), max(names)
        same = 0
        while same < min(len(first), len(last)) and first[same] == last[same]:
            same += 1
        head = first[:same].rsplit("_", 1)[0] + "_"
    if head == "EMO_E_" or names[0] == "EMO_OK":
        head = "EMO_"
    out = []
    for name, value, doc in values:
        short = name[len(head):]
        if short.startswith("E_"):
            short = short[2:]
        out.append((short if not short[0].isdigit() else "_" + short, value, doc))
    return out


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_structs(api):
    out = [LICENSE + NOTE, '"""The structs of the C interface, field by field, in the words of C."""\n',
           "from __future__ import annotations\n", "from typing import Dict, Tuple\n\n"]
    out.append("# Each field: its name, its C type, what the header says of it.\n")
    out.append("STRUCTS: Dict[str, Tuple[Tuple[str, str, str], ...]] = {\n")
    for name, (_, fields) in api.structs.items():
        out.append("    %s: (\n" % quoted(name))
        for field in fields:
            out.append("        (%s),\n" % ", ".join(quoted(x) for x in field))
        out.append("    ),\n")
    return "".join(out) + "}\n"


def write_abi(api):
    out = [LICENSE + NOTE, '"""The C interface as data: structs (of _structs.py), functions and enums, in the words of C."""\n',
           "from __future__ import annotations\n", "from typing import Dict, Tuple\n\n", "from ._structs import STRUCTS\n\n",
           '__all__ = ["ENUMS", "FUNCTIONS", "HIDDEN", "STRUCTS", "VERSION"]\n\n',
           "VERSION = %s\n\n" % quoted(api.version)]
    out.append("# Fields that are no options of a Python call.\nHIDDEN = r\"%s\"\n" % HIDDEN)
    out.append("\n# Each function: what it returns, and its parameters' types and names.\n")
    out.append("FUNCTIONS: Dict[str, Tuple[str, Tuple[Tuple[str, str], ...]]] = {\n")
    for name, (result, parameters) in api.functions.items():
        inner = "".join("(%s, %s), " % (quoted(t), quoted(n)) for t, n in parameters)
        out.append("    %s: (%s, (%s)),\n" % (quoted(name), quoted(result), inner.rstrip(" ")))
    out.append("}\n\n# Types that are 32-bit integers in C, and the class of enums.py for each.\n")
    out.append("ENUMS: Dict[str, str] = {\n%s}\n" % "".join(
        "    %s: %s,\n" % (quoted(n), quoted(camel(n))) for n in api.enums))
    return "".join(out)


def write_enums(api):
    out = [LICENSE + NOTE, '"""The constants of the C interface. Members are integers; options also take their names in\n'
           'lower case: schedule="cosine"."""\n', "import enum\n\n__all__ = [\n"]
    out += ["    %s,\n" % quoted(camel(n)) for n in api.enums] + ["]\n"]
    for name, (doc, values) in api.enums.items():
        out.append("\n\nclass %s(enum.IntEnum):\n" % camel(name))
        out.append('    """%s"""\n\n' % ((doc or "Constants of %s." % name).replace('"', "'")))
        for short, value, text in members(values):
            out.append("    %s = %d%s\n" % (short, value, "  # " + text if text else ""))
    return "".join(out)


def annotation(api, struct, field, kind):
    if (struct, field) in SPECIAL:
        return SPECIAL[(struct, field)]
    if kind in PYTHON:
        return PYTHON[kind]
    if kind in api.enums:
        return "Union[int, str]"
    return "Any"


def write_options(api):
    out = [LICENSE + NOTE, '"""The options of every call as types, for editors and type checkers. Each is a keyword of the call,\n'
           'with the name, the default and the meaning of the field in C."""\n', "from __future__ import annotations\n\n",
           "import os\nfrom typing import TYPE_CHECKING, Any, Callable, Optional, Sequence, TypedDict, Union\n\n",
           "if TYPE_CHECKING:\n    from .comm import Comm\n    from .data import Dataset\n    from .mask import Mask\n"
           "    from .pool import Pool\n    from .runtime import Allocator, Executor\n    from .train import StepMetrics\n\n",
           'Path = Union[str, "os.PathLike[str]"]\n',
           "#: progress(phase, done, total): how far a long call is; a true result cancels it\n",
           "Progress = Callable[[str, int, int], object]\n"]
    for name, (doc, fields) in api.structs.items():
        if not name.endswith("_options") and name != "emo_router_batch":
            continue
        shown = [f for f in fields if not re.match(HIDDEN, f[0]) and (name, f[0]) not in PARAMETERS]
        out.append("\n\nclass %s(TypedDict, total=False):\n" % camel(name))
        out.append('    """%s"""\n' % (doc or "Options.").replace('"', "'"))
        if shown:
            out.append("\n")
        for field, kind, text in shown:
            hint = annotation(api, name, field, kind)
            hint = hint if not hint.startswith('"') else hint.strip('"')
            out.append("    %s: %s%s\n" % (field, hint.replace('"', ""), "  # " + text if text else ""))
    return "".join(out)


def main():
    parser = argparse.ArgumentParser(description="C headers to Python data")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    api = Api()
    stale = []
    for name, write in (("_abi.py", write_abi), ("_structs.py", write_structs), ("enums.py", write_enums),
                        ("options.py", write_options)):
        text = write(api)
        path = HERE / "emo" / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print("not what the headers say: %s; run bindings/python/generate.py" % ", ".join(stale))
        return 1
    print("%d structs, %d functions, %d enums%s" % (len(api.structs), len(api.functions), len(api.enums),
                                                    "" if check else "; wrote " + (", ".join(stale) or "nothing")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
