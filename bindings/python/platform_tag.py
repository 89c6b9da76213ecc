# SPDX-License-Identifier: Apache-2.0
"""The manylinux tag that shared libraries keep: which C library they want at least, and nothing else from outside.

    python3 platform_tag.py FILE...     prints it for these files together; status 1 and the reason when there is none

A wheel named manylinux_2_N_ARCH promises to run with glibc 2.N and the few libraries that every Linux desktop has
(PEP 600). What a library wants stands in its dynamic section (NEEDED) and its table of symbol versions.
"""
import os
import pathlib
import struct
import sys

# Of the policy's list, those that can come up here.
EVERYWHERE = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libz.so.1", "libgcc_s.so.1",
              "libstdc++.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
MACHINES = {62: "x86_64", 183: "aarch64"}
# glibc marks the use of packed relocations by a name instead of a number.
NAMED = {"GLIBC_ABI_DT_RELR": 36}
SHT_DYNAMIC, SHT_VERNEED = 6, 0x6ffffffe
DT_NEEDED, DT_SONAME = 1, 14


class NoTag(Exception):
    """Why there is none."""


def wants(path):
    """(machine, soname, sonames it needs, names of symbol versions it needs) of a 64-bit little-endian library."""
    data = pathlib.Path(path).read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise NoTag("%s is no 64-bit little-endian ELF file" % path)
    machine = struct.unpack_from("<H", data, 18)[0]
    headers, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQII", data, headers + i * size) for i in range(count)]

    def text(section, offset):
        begin = sections[section[6]][4] + offset  # its string table
        return data[begin:data.index(b"\0", begin)].decode()

    soname, needed, versions = None, [], []
    for section in sections:
        begin, end = section[4], section[4] + section[5]
        if section[1] == SHT_DYNAMIC:
            for tag, value in struct.iter_unpack("<qQ", data[begin:end]):
                if tag == DT_NEEDED:
                    needed.append(text(section, value))
                elif tag == DT_SONAME:
                    soname = text(section, value)
        elif section[1] == SHT_VERNEED:
            at = begin
            for _ in range(section[7]):
                _, entries, _, first, following = struct.unpack_from("<HHIII", data, at)
                aux = at + first
                for _ in range(entries):
                    _, _, _, name, step = struct.unpack_from("<IHHII", data, aux)
                    versions.append(text(section, name))
                    aux += step
                at += following
    return machine, soname, needed, versions


def platform_tag(paths):
    """manylinux_2_N_ARCH of the files together, or NoTag."""
    paths = [str(path) for path in paths]
    files = {os.path.basename(path): wants(path) for path in paths}
    machines = {machine for machine, _, _, _ in files.values()}
    if len(machines) != 1 or not machines <= set(MACHINES):
        raise NoTag("the files are of the machines %s" % sorted(machines))
    inside = set(files) | {soname for _, soname, _, _ in files.values()}
    minor = 17  # the oldest that pip knows by number on every machine here
    for name, (_, _, needed, versions) in files.items():
        foreign = set(needed) - inside - EVERYWHERE
        if foreign:
            raise NoTag("%s needs %s, which not every system has" % (name, ", ".join(sorted(foreign))))
        if not any(version.startswith("GLIBC_") for version in versions):
            raise NoTag("%s was not linked with glibc" % name)
        for version in versions:
            numbers = version.partition("GLIBC_")[2].split(".")
            if version in NAMED:
                minor = max(minor, NAMED[version])
            elif version.startswith("GLIBC_"):
                if numbers[0] != "2" or not all(part.isdigit() for part in numbers):
                    raise NoTag("%s needs %s" % (name, version))
                minor = max(minor, int(numbers[1]))
    return "manylinux_2_%d_%s" % (minor, MACHINES[machines.pop()])


if __name__ == "__main__":
    try:
        print(platform_tag(sys.argv[1:]))
    except NoTag as reason:
        sys.exit("no tag: %s" % reason)
