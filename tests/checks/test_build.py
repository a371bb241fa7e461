"""What the build says of itself: warnings, symbols, flags, other systems."""

import fnmatch
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from checks import tree

# base/ is what all stand on: its parts have short names of their own.
PREFIXES = {
    "base": (
        *("error_", "cleanup_", "log_", "buf_", "ring_", "waker_", "clock_", "hash_", "id_", "fs_"),
        *("kv_", "token_"),
    )
}
OUR_SENTENCE = "Motte runs on Linux only"
WARNINGS = [
    "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wvla",
    "-Wundef", "-Wcast-qual", "-Wwrite-strings", "-Wpointer-arith", "-Wstrict-prototypes",
    "-Wmissing-prototypes", "-Wold-style-definition", "-Wformat=2", "-Wimplicit-fallthrough",
    "-Wswitch-enum", "-Wnull-dereference", "-Wjump-misses-init", "-Wduplicated-cond",
    "-Wduplicated-branches", "-Wlogical-op",
]  # fmt: skip
HARDENING = ["-fstack-protector-strong", "-fno-common", "-fvisibility=hidden"]


def source_of(folder: str, path: Path) -> Path:
    """CMakeFiles/TARGET.dir/NAME.c.o is made of NAME.c."""
    inside = str(path).split(".dir/", 1)[1].removesuffix(".o")
    return tree.ROOT / folder / inside


def objects() -> list[tuple[str, Path]]:
    """(folder, object file) of everything that goes into a program of ours. Not the objects of
    sources that are gone, which a build folder keeps."""
    build = tree.programs_folder()
    found = [
        (folder, path)
        for folder in tree.FOLDERS
        for path in sorted((build / folder).glob("CMakeFiles/*.dir/**/*.o"))
        if source_of(folder, path).exists()
    ]
    assert len(found) > 100, f"{build} is not a whole build"
    return found


def symbols(path: Path) -> list[str]:
    listed = tree.run("nm", "-g", "--defined-only", "-f", "posix", path).stdout
    return [line.split()[0] for line in listed.splitlines()]


def test_R35_global_symbols_carry_their_folders_name() -> None:
    strangers = []
    for folder, path in objects():
        allowed = PREFIXES.get(folder, (f"{folder}_",))
        for name in symbols(path):
            if name != "main" and not name.startswith((*allowed, "__", ".")):
                strangers.append(f"{folder}: {name} ({path.name})")
    assert not strangers, "\n".join(strangers)


def test_R35_nothing_is_defined_twice() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for folder, path in objects():
        for name in symbols(path):
            if name != "main" and not name.startswith(("__", ".")):
                places[name].add(f"{folder}/{path.name}")
    assert {name: sorted(where) for name, where in places.items() if len(where) > 1} == {}


def test_R35_every_source_is_compiled_with_warnings_as_errors() -> None:
    commands = json.loads((tree.programs_folder() / "compile_commands.json").read_text())
    ours = {
        entry["file"]: entry["command"]
        for entry in commands
        if Path(entry["file"]).parent in [tree.ROOT / folder for folder in tree.FOLDERS]
    }
    compiled = {Path(name).resolve() for name in ours}
    written = {p for folder in tree.FOLDERS for p in (tree.ROOT / folder).glob("*.c")}
    assert written <= compiled, f"never compiled: {sorted(map(str, written - compiled))}"
    for name, command in ours.items():
        missing = {*WARNINGS, "-Werror", *HARDENING} - set(command.split())
        assert not missing, f"{name} lacks {missing}"


PROGRAMS = ["motted", "motte-front", "motte-admin", "motte-agent"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_R35_programs_are_hardened(name: str) -> None:
    """As linked: position-independent, relocations read-only, no executable stack, canaries."""
    path = tree.programs_folder() / "bin" / name
    headers = tree.run("readelf", "-hlW", path).stdout
    dynamic = tree.run("readelf", "-dW", path).stdout
    assert re.search(r"^\s+Type:\s+DYN ", headers, re.M), "not position-independent"
    assert re.search(r"^\s+GNU_STACK .* RW ", headers, re.M), "the stack is executable"
    assert "GNU_RELRO" in headers
    assert ("INTERP" in headers) == (name != "motte-agent"), "the agent brings all with it"
    assert re.search(r"\(FLAGS_1\).*\bNOW\b.*\bPIE\b", dynamic)
    assert not re.search(r"TEXTREL|RPATH|RUNPATH", dynamic)
    assert "__stack_chk_fail" in tree.run("nm", path).stdout


def test_R35_a_release_checks_sizes_at_run_time(tmp_path: Path) -> None:
    done = tree.run("cmake", "--preset", "release", "-B", tmp_path)
    assert done.returncode == 0, done.stderr
    for entry in json.loads((tmp_path / "compile_commands.json").read_text()):
        if Path(entry["file"]).parent in [tree.ROOT / folder for folder in tree.FOLDERS]:
            words = entry["command"].split()
            assert "-D_FORTIFY_SOURCE=2" in words, entry["file"]
            assert "-O2" in words, "without it there is nothing to fortify"


def test_R35_no_flag_is_undeclared() -> None:
    """Every MOTTE_ name that code asks for is given by CMake."""
    asked = set()
    guards = re.compile(r"^#\s*ifndef (MOTTE_\w+_H)$", re.M)
    for path in tree.sources():
        text = path.read_text(encoding="utf-8")
        own = set(guards.findall(text))
        lines = re.findall(r"^#\s*(?:if|ifdef|ifndef|elif)\b.*", text, re.M)
        asked |= {name for line in lines for name in re.findall(r"\bMOTTE_\w+", line)} - own
    given = "\n".join(p.read_text(encoding="utf-8") for p in tree.files("CMakeLists.txt", ".cmake"))
    assert {name for name in asked if name not in given} == set()


def test_R35_headers_compile_alone() -> None:
    commands = json.loads((tree.programs_folder() / "compile_commands.json").read_text())
    flags = {
        Path(entry["file"]).parent.name: [
            word
            for word in entry["command"].split()
            if word.startswith(("-I", "-D", "-W", "-std", "/usr/include")) or word == "-isystem"
        ]
        for entry in commands
    }
    for folder in tree.FOLDERS:
        for header in sorted((tree.ROOT / folder).glob("*.h")):
            words = [word.replace('\\"', '"') for word in flags[folder]]
            done = tree.run("cc", *words, "-Wno-unused", "-fsyntax-only", "-x", "c", header)
            assert done.returncode == 0, done.stderr


def test_R35_internal_headers_stay_inside() -> None:
    """Tests may look into what they test."""
    found = []
    include = re.compile(r'^#include "(\w+)/(\w*internal)\.h"')
    for path in tree.sources():
        home = tree.relative(path).split("/")[0]
        for number, line in tree.lines(path):
            match = include.match(line)
            if match and match[1] != home and home != "tests":
                found.append(f"{tree.relative(path)}:{number}: {line}")
    assert not found, "\n".join(found)


def test_R35_folders_use_only_folders_above_them() -> None:
    order = {name: place for place, name in enumerate(tree.FOLDERS)}
    found = []
    for folder in tree.FOLDERS:
        for path in sorted((tree.ROOT / folder).glob("*.[ch]")):
            for number, line in tree.lines(path):
                match = re.match(r'#include "(\w+)/', line)
                if match and order.get(match[1], -1) > order[folder]:
                    found.append(f"{tree.relative(path)}:{number}: {line}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("system", ["FreeBSD", "Darwin", "Windows"])
def test_R38_other_systems_are_told_so(system: str, tmp_path: Path) -> None:
    words = (f"-DCMAKE_SYSTEM_NAME={system}", "-DCMAKE_C_COMPILER_WORKS=1")
    done = tree.run("cmake", "-S", tree.ROOT, "-B", tmp_path, *words)
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert OUR_SENTENCE in said, done.stderr
    assert system in said


def test_R11_the_front_links_no_firewall_and_no_filter_tables() -> None:
    """libiptc is GPL and the root half's; libseccomp's tables are the root half's too."""
    for name in ("motte-front", "motte-agent"):
        linked = tree.run("ldd", tree.programs_folder() / "bin" / name).stdout
        assert "libip4tc" not in linked
        assert "libip6tc" not in linked


def test_R37_what_valgrind_leaves_out_exists() -> None:
    """A name that no longer fits leaves nothing out, or hides why."""
    script = (tree.ROOT / "tests" / "valgrind.sh").read_text(encoding="utf-8")
    unit = tree.ROOT / "tests" / "unit"
    left_out = re.findall(r'^    \[(\w+)/test_\1_([\w*]+)\]="([^"]+)"', script, re.M)
    assert len(left_out) > 3
    for folder, program, words in left_out:
        sources = list((unit / folder).glob(f"test_{program}.c"))
        assert sources, program
        if "_*" in words:
            names = re.findall(r"^Test\(\w+, (\w+)", sources[0].read_text(encoding="utf-8"), re.M)
            assert fnmatch.filter(names, words), f"{program} has no test {words}"
    (without,) = re.findall(r'^front_without="([^"]+)"', script, re.M)
    (files,) = re.findall(r"tests/system/test_\{([\w,]+)\}\.py", script)
    system = [tree.ROOT / "tests" / "system" / f"test_{name}.py" for name in files.split(",")]
    text = "".join(path.read_text(encoding="utf-8") for path in system)
    for word in re.findall(r"not (\w+)", without):
        assert re.search(rf"def test_\w*{word}", text), f"no test has {word} in its name"
