#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What nvcc makes of the CUDA kernels, checked without a GPU.

usage: scripts/nvcc_gate.py [--update] [--out FOLDER] [--jobs N]

Compiles every file of cuda/ for each architecture, and once to PTX. Fails on an error, on register
spills and local memory, on a matrix kernel without tensor-core instructions in its machine code, and when a kernel's
registers, shared memory or tensor-core instructions are not those of cuda/registers.txt (--update writes that table).
With another nvcc than the table's, differences are told and do not fail. Exit 77: there is no nvcc.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ARCHS = ("80", "90", "100", "120")
TABLE = ROOT / "cuda" / "registers.txt"
# Kernels with these names multiply matrices by mma.sync; a name that no kernel has is an error too.
MATRIX = (r"ops/experts_(forward|backward)\.cu:experts_bf16", r"ops/attention_bf16\.cu:(forward|keys|queries)_k<",
          r"ops/product\.cu:product_bf16")
# The low 12 bits of a 128-bit instruction. mma.sync on bf16 is HMMA on every architecture of the list.
HMMA = 0x23C
RECIPE = 1  # of compile_one: raised when it changes, so that no old result is taken for a new one


def nvcc_path():
    for folder in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if folder and os.access(f"{folder}/bin/nvcc", os.X_OK):
            return f"{folder}/bin/nvcc"
    return shutil.which("nvcc")


def release(nvcc):
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release ([\d.]+), V([\d.]+)", text).group(2)


def sections(cubin):
    """Name -> bytes of an ELF file's sections."""
    data = cubin.read_bytes()
    if data[:4] != b"\x7fELF" or data[4] != 2:
        raise ValueError(f"{cubin} is no 64-bit ELF file")
    table, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    text = data[heads[names][4]:heads[names][4] + heads[names][5]]
    out = {}
    for head in heads:
        name = text[head[0]:text.index(b"\0", head[0])].decode()
        out[name] = b"" if head[1] == 8 else data[head[4]:head[4] + head[5]]  # 8: no bytes in the file
    return out


def tensor_instructions(cubin):
    """Mangled kernel -> number of tensor-core instructions in its machine code."""
    counts = {}
    for name, code in sections(cubin).items():
        if name.startswith(".text."):
            words = (struct.unpack_from("<Q", code, at)[0] for at in range(0, len(code), 16))
            counts[name[len(".text."):]] = sum(word & 0xFFF == HMMA for word in words)
    return counts


def demangle(names):
    if not names:
        return {}
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    out = {}
    for mangled, plain in zip(names, text.splitlines()):
        plain = plain.removeprefix("void ").replace("(anonymous namespace)::", "")
        depth = 0
        for at, c in enumerate(plain):  # up to the parameters, which no "(" of a template argument begins
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                plain = plain[:at]
                break
        out[mangled] = plain.replace(" ", "")
    return out


def with_headers(source):
    """The source and the project's headers that it includes, directly or not."""
    seen, todo = [], [source]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.append(path)
        for name in re.findall(r'^ *# *include *[<"]([^>"]+)[>"]', path.read_text(), re.M):
            found = [f / name for f in (path.parent, ROOT / "cuda", ROOT / "include") if (f / name).is_file()]
            todo += [found[0].resolve()] if found else []
    return [source] + sorted(seen[1:])


def remembered(nvcc_version, source, arch, out):
    """Where the result of this very source, with these headers, is kept, and the result if it is there."""
    digest = hashlib.sha256(f"{nvcc_version} {arch} {RECIPE}".encode())
    for path in with_headers(source):
        digest.update(path.read_bytes())
    name = source.relative_to(ROOT / "cuda").as_posix().replace("/", "_")
    path = out / f"{name}.{arch}.json"
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["digest"] == digest.hexdigest():
            return path, digest.hexdigest(), (kept["bad"], [tuple(row) for row in kept["rows"]])
    return path, digest.hexdigest(), None


def compile_if_new(nvcc, version, source, arch, out):
    path, digest, kept = remembered(version, source, arch, out)
    if kept is not None:
        return kept
    bad, rows = compile_one(nvcc, source, arch, out)
    path.write_text(json.dumps({"digest": digest, "bad": bad, "rows": rows}))
    return bad, rows


def compile_one(nvcc, source, arch, out):
    """(messages, rows): rows are (kernel, arch, registers, shared bytes, tensor-core instructions)."""
    name = source.relative_to(ROOT / "cuda").as_posix().replace("/", "_")
    target = out / f"{name}.{arch}"
    common = [nvcc, "-std=c++17", "-O3", f"-I{ROOT}/include", f"-I{ROOT}/cuda", "-o", str(target), str(source)]
    if arch == "ptx":
        done = subprocess.run(common + ["-ptx", "-arch=compute_80"], capture_output=True, text=True)
        return ([f"{name} to PTX: {done.stderr.strip()}"] if done.returncode else []), []
    done = subprocess.run(common + ["-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v,-warn-spills,-warn-lmem-usage"],
                          capture_output=True, text=True)
    text = done.stderr
    where = f"{name} for sm_{arch}"
    if done.returncode:
        return [f"{where}: {text.strip()}"], []
    bad = []
    tensor = tensor_instructions(target)
    rows = []
    entries = re.split(r"Compiling entry function '", text)[1:]
    plain = demangle([entry.split("'")[0] for entry in entries])
    for entry in entries:
        mangled = entry.split("'")[0]
        used = re.search(r"Used (\d+) registers", entry)
        shared = re.search(r"(\d+) bytes smem", entry)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry)
        if not used or not frame or mangled not in tensor:
            bad.append(f"{where}: nvcc's report on {mangled} was not understood")
            continue
        if any(int(v) for v in frame.groups()):
            bad.append(f"{where}: {plain[mangled]} has {frame.group(0)} (__launch_bounds__(threads, 1) lets it have "
                       "more registers)")
        rows.append((f"{source.relative_to(ROOT / 'cuda').as_posix()}:{plain[mangled]}", arch, int(used.group(1)), int(shared.group(1)) if shared else 0, tensor[mangled]))
    if tensor.keys() - {entry.split("'")[0] for entry in entries}:
        bad.append(f"{where}: machine code of functions that are no kernels: they were not inlined")
    return bad, rows


def check_matrix(rows):
    bad = []
    for pattern in MATRIX:
        kernels = [row for row in rows if re.search(pattern, row[0])]
        if not kernels:
            bad.append(f"no kernel matches {pattern}: the list of matrix kernels is out of date")
        bad += [f"{row[0]} for sm_{row[1]} has no tensor-core instruction" for row in kernels if row[4] == 0]
    return bad


def render(version, rows):
    lines = [f"# nvcc {version}; written by scripts/nvcc_gate.py --update",
             "# kernel architecture registers static-shared-bytes tensor-core-instructions"]
    return lines + [" ".join(map(str, row)) for row in sorted(rows, key=lambda r: (r[0], int(r[1])))]


def compare(lines, version):
    """What differs from the committed table, and whether that fails."""
    if not TABLE.exists():
        return ["cuda/registers.txt is missing: scripts/nvcc_gate.py --update writes it"], True
    old = TABLE.read_text().splitlines()
    same_compiler = bool(old) and f"nvcc {version};" in old[0]
    before, now = set(old[2:]), set(lines[2:])
    told = [f"- {line}" for line in sorted(before - now)] + [f"+ {line}" for line in sorted(now - before)]
    return told, same_compiler


def main(arguments):
    update = "--update" in arguments
    out = pathlib.Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else ROOT / "build" / "nvcc"
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else os.cpu_count() or 2
    nvcc = nvcc_path()
    if not nvcc:
        print("nvcc is not installed: what it makes of the kernels is not checked")
        return 77
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted((ROOT / "cuda").rglob("*.cu"))
    version = release(nvcc)
    bad, rows = [], []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        work = [pool.submit(compile_if_new, nvcc, version, source, arch, out) for source in sources for arch in ARCHS + ("ptx",)]
        for done in work:
            messages, found = done.result()
            bad += messages
            rows += found
    rows = sorted(set(rows), key=lambda r: (r[0], int(r[1])))
    if not bad:
        bad += check_matrix(rows)
    lines = render(version, rows)
    (out / "registers.txt").write_text("\n".join(lines) + "\n")
    if update and not bad:
        TABLE.write_text("\n".join(lines) + "\n")
    for message in bad:
        print(f"FAILED: {message}")
    told, fails = compare(lines, version)
    if told:
        print("the kernels differ from cuda/registers.txt" +
              (": scripts/nvcc_gate.py --update, and look at what changed" if fails else ", of another nvcc:"))
        print("\n".join(told[:60]))
    print(f"nvcc {version}: {len(sources)} files, {len(rows)} kernels over {len(ARCHS)} architectures")
    return 1 if bad or (told and fails) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
