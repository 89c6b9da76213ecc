# SPDX-License-Identifier: Apache-2.0
"""The package knows all of the C interface, and refuses a library that is another one."""
import ctypes
import enum
import inspect
import os
import pathlib
import re
import subprocess
import sys

import pytest

import emo
from emo import _abi, _lib, errors

PACKAGE = pathlib.Path(emo.__file__).parent

# Functions that no module calls: what they do, Python does another way.
NOT_WRAPPED = {
    "emo_version_number": "emo.version()",
    "emo_dtype_name": "emo.Dtype",
    "emo_struct_size": "checked at import",
    "emo_dataset_from_text": "emo.Dataset.from_texts(), which has options",
}


def generate(source, *arguments):
    return subprocess.run([sys.executable, str(source / "bindings" / "python" / "generate.py"), *arguments],
                          capture_output=True, text=True)


def test_data_is_what_the_headers_say(source):
    done = generate(source, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_declared_function_has_a_prototype(source):
    text = "".join(p.read_text() for p in (source / "include" / "emo").rglob("*.h") if p.name != "backend.h")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    declared = set(re.findall(r"\b(emo_\w+)\s*\([^;{]*\);", " ".join(re.findall(r"EMO_API[^;{]*;", text))))
    assert len(declared) > 150
    assert declared == set(_abi.FUNCTIONS)
    for name in declared:
        function = getattr(emo.library(), name)
        assert len(function.argtypes) == len(_abi.FUNCTIONS[name][1])


def test_every_exported_symbol_has_a_prototype():
    path = emo.library().path
    listed = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    exported = {line.split()[2].split("@")[0] for line in listed.splitlines() if len(line.split()) == 3}
    exported = {name for name in exported if name.startswith("emo_")}
    assert len(exported) > 150
    assert exported == set(_abi.FUNCTIONS)


def test_every_function_is_reached_by_a_module():
    written = ("_abi.py", "_structs.py", "enums.py", "options.py")  # by generate.py
    code = "".join(p.read_text() for p in PACKAGE.glob("*.py") if p.name not in written)
    inits = {name + "_init" for name in _abi.STRUCTS}  # for older programs: Library.new() says its size
    missing = [name for name in _abi.FUNCTIONS
               if name not in NOT_WRAPPED and name not in inits and not re.search(r"\b%s\b" % name, code)]
    assert not missing, "no module of the package calls %s" % ", ".join(missing)


def test_every_struct_has_the_size_of_the_library():
    size = emo.library().emo_struct_size
    for name, struct in _lib.STRUCTS.items():
        assert ctypes.sizeof(struct) == size(name.encode()), name
    assert size(b"emo_nothing") == 0 and size(None) == 0


def test_the_list_of_layouts_has_every_field(source):
    rows = (source / "src" / "api" / "structs.def").read_text()
    listed = {}
    for struct, field, offset in re.findall(r"^FIELD\((\w+), (\w+), (\d+)\)", rows, re.M):
        listed.setdefault(struct, []).append((field, int(offset)))
    assert listed == {name: [(field, getattr(struct, field).offset) for field, _ in struct._fields_]
                      for name, struct in _lib.STRUCTS.items()}


def test_defaults_are_those_of_the_library():
    options = emo.library().new("emo_train_options")
    assert options.struct_size == ctypes.sizeof(options)
    assert (options.batch_rows, options.seq_len, options.max_grad_norm) == (12, 256, 1.0)
    assert emo.library().new("emo_session_options").sequences == 1


def functions_of_the_package():
    """(name, function) of all that users call, without what enum and namedtuple bring along."""
    for name in emo.__all__:
        thing = getattr(emo, name)
        members = {}
        if inspect.isclass(thing) and not issubclass(thing, (enum.Enum, tuple)):
            members = vars(thing)
        elif inspect.ismodule(thing):
            members = {m: getattr(thing, m) for m in getattr(thing, "__all__", ())}
        elif inspect.isfunction(thing):
            yield name, thing
        for member, value in members.items():
            value = getattr(value, "__func__", getattr(value, "fget", value))
            if inspect.isfunction(value) and (not member.startswith("_") or member == "__init__"):
                yield "%s.%s" % (name, member), value


def test_everything_has_type_hints_and_a_docstring():
    bare, count = [], 0
    for name, function in functions_of_the_package():
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        bare += ["%s(%s)" % (name, p.name) for p in parameters if p.annotation is p.empty]
        if signature.return_annotation is signature.empty:
            bare.append("%s ->" % name)
        # A property or a conversion may be called what it is; what takes arguments says what they are.
        if parameters and not function.__doc__ and not name.endswith("__init__"):
            bare.append("%s: no docstring" % name)
        count += 1
    assert not bare, "\n".join(bare)
    assert count > 150


def test_every_status_has_an_exception():
    codes = {int(s) for s in emo.Status if s != emo.Status.OK}
    assert codes == set(errors.BY_STATUS) and len(codes) >= 16
    for code, kind in errors.BY_STATUS.items():
        assert issubclass(kind, emo.Error)
        assert emo.status_name(code) == "EMO_E_" + emo.Status(code).name
        assert emo.status_text(code)
        raised = errors.make(code, "what", 2, 5)
        assert type(raised) is kind and str(raised) == "what" and raised.number == 5 and raised.status == code


def test_results_have_every_field_of_c():
    for struct, kind in (("emo_step_metrics", emo.StepMetrics), ("emo_model_info", emo.ModelInfo),
                         ("emo_eval_result", emo.EvalResult)):
        # "progress" is what the caller sets, no result
        fields = [f for f, _, _ in _abi.STRUCTS[struct] if f not in ("struct_size", "progress")]
        assert sorted(kind._fields) == sorted(fields)


def test_constants_are_those_of_the_headers(source):
    text = re.sub(r"/\*.*?\*/", "", "".join(p.read_text() for p in (source / "include" / "emo").rglob("*.h")
                                                  if p.name != "backend.h"), flags=re.S)
    values = dict(re.findall(r"\b(EMO_[A-Z0-9_]+) = (-?\d+)", text))
    members = sum(len(getattr(emo.enums, name)) for name in emo.enums.__all__)
    assert members == len(values) + len(emo.Status)
    assert issubclass(emo.State, enum.IntEnum) and emo.StopReason.LENGTH == int(values["EMO_STOP_LENGTH"])


def stub(tmp_path, version, size):
    """A library that says these things of itself."""
    code = tmp_path / "stub.c"
    functions = "".join("void %s(void) {}\n" % f for f in _abi.FUNCTIONS
                        if f not in ("emo_version_string", "emo_struct_size"))
    code.write_text('#include <stddef.h>\n%sconst char *emo_version_string(void) { return "%s"; }\n'
                    "size_t emo_struct_size(const char *n) { (void)n; return %d; }\n" % (functions, version, size))
    path = tmp_path / "libstub.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", str(path), str(code)], check=True)
    return str(path)


def imported(library, code="import emo; emo.library()"):
    env = dict(os.environ, EMO_LIBRARY=library, PYTHONPATH=str(PACKAGE.parent))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


@pytest.mark.skipif(bool(os.environ.get("EMO_TEST_INSTALLED")), reason="the installed package has a library of its own")
@pytest.mark.parametrize("version, size, says", [
    ("9.4.0", 24, "do not fit"), ("0.99.0", 24, "do not fit"), (_abi.VERSION, 7, "has 7 bytes, not"),
])
def test_another_library_is_refused_at_import(tmp_path, version, size, says):
    done = imported(stub(tmp_path, version, size), "import emo")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError") and version in last and _abi.VERSION in last and says in last


@pytest.mark.skipif(bool(os.environ.get("EMO_TEST_INSTALLED")), reason="the installed package has a library of its own")
def test_a_library_that_is_none_is_refused(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("no library")
    assert "ImportError: emo: cannot load" in imported(str(path)).stderr
    assert "ImportError: emo: cannot load" in imported(str(tmp_path / "absent.so")).stderr


@pytest.mark.skipif(bool(os.environ.get("EMO_TEST_INSTALLED")), reason="the installed package has a library of its own")
def test_without_a_library_the_first_use_says_so():
    code = ("import emo, sys; emo._lib._soname = lambda: 'libemo-absent.so'\n"
            "emo._lib._loaded = None\n"
            "try:\n    emo.Pool.none()\nexcept ImportError as e:\n    print(e)\n"
            "emo.load_library(sys.argv[1] if len(sys.argv) > 1 else %r)\nprint(emo.Pool.fixed(3))\n"
            "emo.load_library()\ntry:\n    emo.load_library('/other.so')\nexcept ImportError as e:\n    print(e)"
            ) % emo.library().path
    env = dict(os.environ, PYTHONPATH=str(PACKAGE.parent))
    env.pop("EMO_LIBRARY")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    out = done.stdout.splitlines()
    assert "found no libemo" in out[0] and out[1] == "fixed:3" and "is loaded already" in out[2], done.stderr


def test_types_are_marked():
    assert (PACKAGE / "py.typed").exists()
