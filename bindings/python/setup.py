# SPDX-License-Identifier: Apache-2.0
"""Builds libemo with CMake and puts it inside the package. pyproject.toml has the rest.

Environment:
    EMO_SOURCE_DIR      the source tree of libemo, when this folder is not in it
    EMO_CMAKE_ARGS      more arguments for CMake, as a shell would read them
    EMO_BUNDLE_LIBRARY  a shared library that was built before, instead of building one
    EMO_BUNDLE=0        leaves the library out: the package then takes the system's
"""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from platform_tag import NoTag, platform_tag  # noqa: E402

ROOT = pathlib.Path(os.environ.get("EMO_SOURCE_DIR") or HERE.parent.parent).resolve()
# What libemo needs and a system may lack; the C library and zlib are everywhere.
COMPANIONS = ("libpcre2-8.so", "libutf8proc.so")


def version():
    """The version of the CMake project."""
    lists = ROOT / "CMakeLists.txt"
    if not lists.exists():
        raise SystemExit("setup.py: %s is not there; build from the source tree of libemo" % lists)
    return re.search(r"project\(emo VERSION ([0-9.]+)", lists.read_text(encoding="utf-8")).group(1)


def wants_library():
    return os.environ.get("EMO_BUNDLE", "1") != "0"


class BuildWithLibrary(build_py):
    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):  # EMO_LIBRARY names the library then
            return
        shutil.copyfile(ROOT / "LICENSE", pathlib.Path(self.build_lib) / "emo" / "LICENSE")
        if not wants_library():
            return
        target = pathlib.Path(self.build_lib) / "emo" / "lib"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        given = os.environ.get("EMO_BUNDLE_LIBRARY")
        library = pathlib.Path(given) if given else self.build_library()
        bundle(library.resolve(), target, with_companions=not given)

    def build_library(self):
        folder = pathlib.Path(self.get_finalized_command("build").build_temp).resolve() / "libemo"
        folder.mkdir(parents=True, exist_ok=True)
        # Its companions lie beside it.
        configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", "-DEMO_BUILD_CLI=OFF",
                     "-DEMO_BUILD_EXAMPLES=OFF", "-DEMO_BUILD_TESTS=OFF", "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
                     "-DCMAKE_INSTALL_RPATH=$ORIGIN", *shlex.split(os.environ.get("EMO_CMAKE_ARGS", ""))]
        jobs = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        for command in (configure, ["cmake", "--build", str(folder), "--target", "emo", "--parallel", jobs]):
            try:
                subprocess.run(command, check=True)
            except FileNotFoundError:
                raise SystemExit("setup.py: cmake is missing (scripts/deps.sh build installs what is needed)") from None
            except subprocess.CalledProcessError as error:
                raise SystemExit("setup.py: %s failed with status %d; scripts/deps.sh build installs what is needed" %
                                 (" ".join(command[:2]), error.returncode)) from None
        found = sorted(folder.glob("libemo.so.*"), key=lambda p: len(p.name)) or sorted(folder.glob("libemo*.dylib"))
        if not found:
            raise SystemExit("setup.py: CMake built no shared library in %s" % folder)
        return found[0]

    def get_outputs(self, include_bytecode=1):
        target = pathlib.Path(self.build_lib) / "emo" / "lib"
        return super().get_outputs(include_bytecode) + [str(target.parent / "LICENSE")] + [str(p) for p in target.rglob("*") if p.is_file()]


def bundle(library, target, with_companions):
    """The library under its soname, without symbols, and what it needs beside it."""
    major = version().split(".")[0]
    name = "libemo.so." + major if ".so" in library.name else library.name
    shutil.copyfile(library, target / name)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-unneeded", str(target / name)], check=False)
    if not with_companions or not shutil.which("ldd"):
        return
    listed = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False).stdout
    for soname, path in re.findall(r"^\s*(\S+) => (/\S+)", listed, re.M):
        if soname.startswith(COMPANIONS):
            shutil.copyfile(path, target / soname)
            for text in pathlib.Path("/usr/share/doc").glob(soname.split(".so")[0] + "*/copyright"):
                shutil.copyfile(text, target / (soname + ".copyright"))


class PlatformWheel(bdist_wheel):
    """Any Python 3, this platform: there is a library inside, but no extension module."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not wants_library()

    def get_tag(self):
        """The platform is what the libraries inside keep: any Linux with their glibc, else a machine like this one."""
        if not wants_library():
            return ("py3", "none", "any")
        try:
            libraries = (pathlib.Path(self.bdist_dir) / "emo" / "lib").glob("*.so*")
            return ("py3", "none", platform_tag(p for p in libraries if not p.name.endswith(".copyright")))
        except NoTag as reason:
            print("setup.py: a wheel for machines like this one alone: %s" % reason)
            return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return wants_library()


setup(version=version(), cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
      distclass=PlatformDistribution)
