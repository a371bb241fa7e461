"""What the client says of itself: its help, its manual page and its completion tell the same."""

import os
import re
from pathlib import Path

import pytest

from checks import tree

OPTION = re.compile(r"^  (?:-(\w),|   ) --([a-z-]+)", re.M)


def motte(*words: str) -> str:
    done = tree.run(tree.programs_folder() / "bin" / "motte", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def commands() -> dict[str, set[str]]:
    """Every command's options as its help tells them, "" for those of all."""
    told = motte("--help")
    names = re.findall(r"^  ([a-z][a-z-]*)  +[A-Z]", told.split("Of all commands")[0], re.M)
    assert {"run", "exec", "completion"} <= set(names)
    return {
        name: {
            word
            for letter, long in OPTION.findall(motte(name, "--help") if name else told)
            for word in (f"--{long}", f"-{letter}")
            if word != "-"
        }
        for name in ["", *names]
    }


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("manual") / "motte.1"
    page.write_text(motte("manual"), encoding="utf-8")
    return page


def test_R39_the_manual_page_is_well_formed(manual: Path) -> None:
    told = tree.run("mandoc", "-T", "lint", "-W", "warning", manual).stdout.splitlines()
    assert [line for line in told if "missing date" not in line] == [], "it has a version instead"


def test_R39_every_command_and_option_is_in_the_manual_page(
    manual: Path, commands: dict[str, set[str]]
) -> None:
    page = tree.run("mandoc", "-T", "utf8", "-O", "width=100", manual).stdout
    page = re.sub(r".\x08", "", page)  # bold is printed twice
    parts = dict(re.findall(r"^   motte ([a-z-]+).*\n((?:(?!   \w|\w).*\n)*)", page, re.M))
    parts[""] = page[page.index("\nOPTIONS\n") : page.index("\nCOMMANDS\n")]
    for name, options in commands.items():
        assert set(re.findall(r"(?<![\w-])--?\w[a-z-]*", parts[name])) >= options, name


class Bash:
    """What it offers for the last of these words, with `names` as the service's VMs."""

    def __init__(self, folder: Path, names: str) -> None:
        fake = folder / "motte"
        fake.write_text(f"#!/bin/sh\n[ \"$*\" = 'ps -q' ] && cat <<'END'\n{names}\nEND\n")
        fake.chmod(0o755)
        (folder / "completion").write_text(motte("completion", "bash"), encoding="utf-8")
        self.folder = folder

    def offers(self, *words: str) -> set[str]:
        script = (
            'source ./completion; COMP_WORDS=(motte "$@"); COMP_CWORD=$#;'
            ' _motte; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        path = f"PATH={self.folder}:{os.environ['PATH']}"
        command = ["env", path, "bash", "--norc", "-uc", script, "bash", *words]
        done = tree.run(*command, cwd=self.folder)
        assert (done.returncode, done.stderr) == (0, ""), words
        return set(done.stdout.split())


def test_R39_bash_completes_every_command_and_option(
    tmp_path: Path, commands: dict[str, set[str]]
) -> None:
    bash = Bash(tmp_path, "")
    names = set(commands) - {""}
    assert bash.offers("") == names
    assert bash.offers("--ca", "run", "ex") == {"exec"}
    for name in names:
        assert bash.offers("--address=x", name, "-") == commands[name] | commands[""]
    assert bash.offers("run", "--mem", "64", "--im") == {"--image"}
    assert bash.offers("exec", "--env", "=", "") == set(), "a value is not ours to guess"
    assert bash.offers("exec", "vm", "ls", "-") == set(), "the words are the VM's command's"
    assert bash.offers("--ca", "compl") == {"completion"}
    assert bash.offers("--ca", "=", "compl") == {"completion"}


def test_R39_bash_completes_the_names_of_vms_and_runs_none(tmp_path: Path) -> None:
    bash = Bash(tmp_path, "first\nsecond\n$(touch${IFS}ran)")
    assert bash.offers("exec", "-it", "f") == {"first"}
    assert bash.offers("exec", "") >= {"first", "second"}
    assert bash.offers("rm", "first", "s") == {"second"}
    assert bash.offers("create", "") == set()
    assert bash.offers("cp", "compl") == {"completion"}, "a file that is here"
    assert bash.offers("cp", "first", ":", "compl") == set()
    assert not (tmp_path / "ran").exists()


def test_R39_the_completion_is_clean_bash(tmp_path: Path) -> None:
    script = tmp_path / "motte"
    script.write_text(motte("completion", "bash"), encoding="utf-8")
    done = tree.run("shellcheck", "--shell=bash", script)
    assert done.returncode == 0, done.stdout
