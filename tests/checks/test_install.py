"""`cmake --install`: what lies where, and that the files that name each other agree."""

import os
import re
from pathlib import Path

import pytest

from checks import tree

CONFIGURATION = "/etc/motte/motted.conf"
PROGRAMS = {
    "bin/motte",
    "bin/motted",
    "libexec/motte/motte-admin",
    "libexec/motte/motte-agent",
    "libexec/motte/motte-front",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install of this build below another root; the prefix is CMake's default."""
    root = tmp_path_factory.mktemp("root")
    build = tree.programs_folder()
    done = tree.run("env", f"DESTDIR={root}", "cmake", "--install", build, "--prefix=/usr/local")
    assert done.returncode == 0, done.stderr
    return root


def test_R39_every_program_is_installed_and_nothing_else_can_be_run(installed: Path) -> None:
    prefix = installed / "usr" / "local"
    runnable = {
        str(path.relative_to(prefix))
        for path in prefix.rglob("*")
        if path.is_file() and os.access(path, os.X_OK)
    }
    scripts = {name for name in runnable if name.endswith(".sh")}
    assert runnable - scripts == PROGRAMS
    assert all(name.startswith("share/motte/") for name in scripts)


def test_R39_installed_scripts_find_each_other(installed: Path) -> None:
    """They call one another by their places, which are those of deploy/."""
    share = installed / "usr" / "local" / "share" / "motte"
    for path in (p for p in share.rglob("*") if p.is_file()):
        source = tree.ROOT / "deploy" / path.relative_to(share)
        assert path.read_bytes() == source.read_bytes()
        for name in re.findall(r"\$here/([\w./-]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / name).exists(), f"{path.name} calls {name}"


def test_R39_the_unit_reads_the_file_that_everybody_names(installed: Path) -> None:
    """quickstart.sh writes it, README.md names it; an example of it lies beside its place."""
    unit = next(installed.rglob("motted.service")).read_text(encoding="utf-8")
    assert re.findall(r"^ExecStart=(.+)$", unit, re.M) == [
        f"/usr/local/bin/motted --config={CONFIGURATION}"
    ]
    assert (installed / f"{CONFIGURATION[1:]}.example").exists()
    assert not (installed / CONFIGURATION[1:]).exists(), "an install must not undo what was set"
    quickstart = (tree.ROOT / "deploy" / "quickstart.sh").read_text(encoding="utf-8")
    assert re.findall(r"^config=(.+)$", quickstart, re.M) == [CONFIGURATION]
    assert CONFIGURATION in (tree.ROOT / "README.md").read_text(encoding="utf-8")


def test_R39_the_unit_keeps_what_adoption_needs(installed: Path) -> None:
    """docs/handover.md: a stop ends no VM and deletes no record."""
    unit = next(installed.rglob("motted.service")).read_text(encoding="utf-8")
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.M))
    assert settings["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert settings["KillMode"] == "process"
    assert settings["RuntimeDirectoryPreserve"] == "yes"
    assert (settings["Type"], settings["NotifyAccess"]) == ("notify", "all")
    forbidden = {"PrivateDevices", "PrivateTmp", "RestrictNamespaces", "ProtectSystem", "Delegate"}
    assert not forbidden & settings.keys()


def test_R39_uninstall_removes_what_was_installed_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    etc = root / "etc" / "motte"
    etc.mkdir(parents=True)
    (etc / "tokens").write_text("an operator's")
    other = root / "usr" / "local" / "bin" / "other"
    other.parent.mkdir(parents=True)
    other.touch()
    before = sorted(root.rglob("*"))
    destination = f"DESTDIR={root}"
    programs = tree.programs_folder()
    done = tree.run("env", destination, "cmake", "--install", programs, "--prefix=/usr/local")
    assert done.returncode == 0, done.stderr
    assert len(sorted(root.rglob("*"))) > len(before) + 20
    done = tree.run("env", destination, "cmake", "--build", programs, "--target", "uninstall")
    assert done.returncode == 0, done.stdout + done.stderr
    left = {path for path in root.rglob("*") if path.is_file()}
    assert left == {etc / "tokens", other}
    motte = set(root.rglob("*motte*"))
    assert motte == {etc}, "its own folders go when they are empty"
