"""motte-admin: the catalogue, the doctor, and that `leftovers` sees what it is trusted to see."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import host
from harness.backend import build_dir
from harness.daemon import UID_COUNT, Daemon
from harness.waiting import wait_until

pytestmark = pytest.mark.testguest

ORPHAN = "a" * 20  # an instance id that no record has
SQUASHFS = b"hsqs"


class Catalogue:
    """A state directory with the kernel `k` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        kernel = folder / "kernel"
        kernel.mkdir()
        elf = build_dir() / "tests" / "guest" / "testguest.elf"
        (kernel / "vmlinux").write_bytes(elf.read_bytes())
        assert self.run("kernel", "add", str(kernel), "--name", "k").returncode == 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(build_dir() / "bin" / "motte-admin"), *words, f"--state-dir={self.state}"],
            check=False,
            capture_output=True,
            text=True,
        )

    def add(self, content: bytes, *more: str, name: str = "i") -> subprocess.CompletedProcess[str]:
        path = self.folder / "disk"
        path.write_bytes(content)
        return self.run("image", "add", str(path), "--name", name, "--kernel", "k", *more)

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("image", "list", "--json").stdout)[
            "images"
        ]
        return found

    def refused(self, done: subprocess.CompletedProcess[str], word: str) -> None:
        """Says why, changes nothing, leaves nothing aside."""
        assert done.returncode == 2
        assert word in done.stderr, done.stderr
        assert os.listdir(self.state / "incoming") == []


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path)


def test_R21_an_image_is_sealed_under_its_digest(catalogue: Catalogue) -> None:
    content = os.urandom(8192)
    assert catalogue.add(content, "--raw").returncode == 0
    disk = catalogue.state / "images" / "i" / "disk"
    status = disk.stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o444, 0)
    assert disk.read_bytes() == content
    (image,) = catalogue.images()
    assert (image["digest"], image["size"]) == (hashlib.sha256(content).hexdigest(), 8192)
    assert catalogue.add(content, "--raw").returncode == 0, "again changes nothing"
    assert catalogue.images() == [image]


def test_R21_an_image_in_use_is_replaced_only_when_told(catalogue: Catalogue) -> None:
    assert catalogue.add(b"a" * 512, "--raw").returncode == 0
    before = catalogue.images()
    catalogue.refused(catalogue.add(b"b" * 512, "--raw"), "--replace")
    assert catalogue.images() == before
    assert catalogue.add(b"b" * 512, "--raw", "--replace").returncode == 0
    assert catalogue.images()[0]["digest"] == hashlib.sha256(b"b" * 512).hexdigest()
    assert os.listdir(catalogue.state / "incoming") == []


def test_R21_what_no_guest_could_boot_is_refused(catalogue: Catalogue) -> None:
    catalogue.refused(catalogue.add(b"x" * 512), "not a squashfs")
    cut = SQUASHFS + bytes(36) + (1 << 20).to_bytes(8, "little") + bytes(512 - 48)
    catalogue.refused(catalogue.add(cut), "cut short")
    catalogue.refused(catalogue.add(b"x" * 513, "--raw"), "512-byte sectors")
    catalogue.refused(catalogue.add(b"", "--raw"), "512-byte sectors")
    bad = catalogue.folder / "bad"
    bad.mkdir()
    catalogue.refused(catalogue.run("kernel", "add", str(bad), "--name", "x"), "no vmlinux")
    (bad / "vmlinux").write_bytes(b"MZ" + bytes(4096))
    catalogue.refused(catalogue.run("kernel", "add", str(bad), "--name", "x"), "ELF")
    (bad / "vmlinux").write_bytes(Path("/bin/true").read_bytes())
    catalogue.refused(catalogue.run("kernel", "add", str(bad), "--name", "x"), "PVH")
    assert catalogue.images() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "A", "a" * 33, "a\nb"])
def test_R10_names_that_would_meet_a_path_are_refused(catalogue: Catalogue, name: str) -> None:
    done = catalogue.add(b"x" * 512, "--raw", f"--name={name}", name="i")
    assert done.returncode == 2
    assert "cannot name an image" in done.stderr, done.stderr
    assert os.listdir(catalogue.state / "images") == []


def test_R21_a_directory_is_packed_the_same_each_time(catalogue: Catalogue) -> None:
    folder = catalogue.folder / "root"
    folder.mkdir()
    (folder / "file").write_text("content", encoding="utf-8")
    words = ("image", "add", str(folder), "--name", "packed", "--kernel", "k")
    assert catalogue.run(*words).returncode == 0
    (first,) = catalogue.images()
    assert "there already" in catalogue.run(*words).stdout
    assert catalogue.images() == [first]
    disk = catalogue.state / "images" / "packed" / "disk"
    assert disk.read_bytes()[:4] == SQUASHFS


def test_R21_one_disk_has_one_kernel(catalogue: Catalogue) -> None:
    assert catalogue.add(b"x" * 512, "--raw").returncode == 0
    assert (
        catalogue.run("kernel", "add", str(catalogue.folder / "kernel"), "--name", "k2").returncode
        == 0
    )
    disk = str(catalogue.folder / "disk")
    done = catalogue.run("image", "add", disk, "--raw", "--name", "j", "--kernel", "k2")
    catalogue.refused(done, "same disk")
    catalogue.refused(catalogue.run("kernel", "remove", "k"), "Image `i`")
    assert catalogue.run("image", "remove", "i").returncode == 0
    assert catalogue.run("kernel", "remove", "k").returncode == 0
    assert catalogue.images() == []


def test_R21_an_image_needs_no_more_than_its_file(catalogue: Catalogue) -> None:
    """Its name is the file's; the kernel is the one there is."""
    disk = catalogue.folder / "my-tools.v2.img"
    disk.write_bytes(b"x" * 512)
    assert catalogue.run("image", "add", str(disk), "--raw").returncode == 0
    (image,) = catalogue.images()
    assert (image["name"], image["kernel"]) == ("my-tools.v2", "k")
    odd = catalogue.folder / "My Tools.img"
    odd.write_bytes(b"y" * 512)
    catalogue.refused(catalogue.run("image", "add", str(odd), "--raw"), "--name")
    kernel = str(catalogue.folder / "kernel")
    assert catalogue.run("kernel", "add", kernel, "--name", "k2").returncode == 0
    done = catalogue.run("image", "add", str(disk), "--raw", "--name", "j")
    catalogue.refused(done, "--kernel")
    assert {"k", "k2"} == set(done.stderr.split("boots it: ")[1].split(" (")[0].split(", "))
    assert len(catalogue.images()) == 1


@pytest.mark.parametrize("word", ["doctor", "image", "kernel", "leftovers", "token"])
def test_R39_every_admin_command_is_a_word_of_motted(catalogue: Catalogue, word: str) -> None:
    """One program to know; it executes motte-admin, which knows the word."""
    motted = str(build_dir() / "bin" / "motted")
    argv = [motted, word, "--no-such-option"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "motted error" not in done.stderr, done.stderr
    assert "Usage: motted COMMAND" in done.stderr or "motted image --help" in done.stderr
    asked = subprocess.run([motted, word, "--help"], check=True, capture_output=True, text=True)
    assert re.search(rf"^  {word}\b", asked.stdout, re.M)
    helped = subprocess.run([motted, "-h"], check=True, capture_output=True, text=True).stdout
    assert re.search(rf"^  motted .*\b{word}\b", helped, re.M)


def test_R18_the_doctor_names_what_is_missing(catalogue: Catalogue) -> None:
    done = catalogue.run("doctor", "--json", "--firecracker=/none", "--qemu=/none")
    report = json.loads(done.stdout)
    assert (report["firecracker"], report["emulation"], done.returncode) == (False, False, 1)
    checks = {check["name"]: check for check in report["checks"]}
    for name in ("firecracker", "qemu"):
        assert checks[name]["status"] == "lacking"
        assert checks[name]["remedy"]
    assert {"kernel", "kvm", "cgroup", "firewall", "uids of VMs"} <= set(checks)
    taken = json.loads(catalogue.run("doctor", "--json", "--uid-base=65536").stdout)
    assert next(c for c in taken["checks"] if c["name"] == "uids of VMs")


def test_R18_the_doctor_sees_a_firewall_it_may_not_touch(catalogue: Catalogue) -> None:
    words = [str(build_dir() / "bin" / "motte-admin"), "doctor", "--json"]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["firewall"]["status"] == "lacking"
    assert done.returncode == 1


# -- leftovers ----------------------------------------------------------------------------------


def plant_process(daemon: Daemon) -> Iterator[str]:
    uid = str(daemon.uid_base + UID_COUNT - 1)
    as_uid = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    with subprocess.Popen([*as_uid, "sleep", "600"]) as process:
        while host.status_of(process.pid)["Uid"].split()[0] != uid:
            assert process.poll() is None
        yield "processes"
        process.kill()


def plant_cgroup(daemon: Daemon, options: str = "") -> Iterator[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounts = [line for line in lines if " - cgroup" in line]
    chosen = [line for line in mounts if line.endswith(options)] or mounts
    folder = Path(chosen[0].split()[4]) / daemon.cgroup / ORPHAN
    folder.mkdir(parents=True)
    yield "cgroups"
    folder.rmdir()
    folder.parent.rmdir()


def plant_io_cgroup(daemon: Daemon) -> Iterator[str]:
    """Version 1 has io in a hierarchy of its own."""
    yield from plant_cgroup(daemon, "blkio")


def plant_chain(daemon: Daemon) -> Iterator[str]:
    chain = "MOTTE_" + "0123456789" * 2
    host.run("ip6tables-legacy", "-t", "security", "-N", chain)
    yield "chains"
    host.run("ip6tables-legacy", "-t", "security", "-X", chain)


def plant_mount(daemon: Daemon) -> Iterator[str]:
    folder = daemon.run_dir / "jail"
    folder.mkdir(parents=True)
    host.run("mount", "-t", "tmpfs", "none", str(folder))
    yield "mounts"
    host.run("umount", str(folder))


def plant_record(daemon: Daemon) -> Iterator[str]:
    path = daemon.run_dir / "priv" / ORPHAN
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    yield "files"
    path.unlink()


def plant_staged_file(daemon: Daemon) -> Iterator[str]:
    path = daemon.state_dir / "staging" / f"{ORPHAN}.memory"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    yield "files"
    path.unlink()


def plant_unfinished_snapshot(daemon: Daemon) -> Iterator[str]:
    """Beside one that is published: that is nobody's leftover."""
    kept = daemon.state_dir / "snapshots" / ORPHAN
    unfinished = kept.with_name(f".{ORPHAN}")
    for folder in (kept, unfinished):
        folder.mkdir(parents=True)
    yield "files"
    for folder in (kept, unfinished):
        folder.rmdir()


@pytest.mark.parametrize(
    "plant",
    [
        plant_process,
        plant_cgroup,
        plant_io_cgroup,
        plant_chain,
        plant_mount,
        plant_record,
        plant_staged_file,
        plant_unfinished_snapshot,
    ],
)
def test_R20_leftovers_sees_each_kind(
    start: Callable[..., Daemon], plant: Callable[[Daemon], Iterator[str]]
) -> None:
    daemon = start(running=False)
    assert daemon.admin("leftovers").returncode == 0
    planted = plant(daemon)
    kind = next(planted)
    try:
        assert daemon.admin("leftovers").returncode == 1
        found = daemon.leftovers()
        assert [key for key in found if key != "running" and found[key]] == [kind]
    finally:
        next(planted, None)
    daemon.assert_no_leftovers()


def test_R20_leftovers_counts_a_spare_chain_once(start: Callable[..., Daemon]) -> None:
    """It stands in a table of IPv4 and in one of IPv6. With two uids there are two."""
    daemon = start(["--uid-count=2"])

    def standing() -> list[set[str]]:
        """VMs' chains by table, where there are any."""
        tables = ("\n".join(lines) for lines in host.firewall().values())
        return [set(found) for text in tables if (found := host.VM_CHAIN.findall(text))]

    wait_until(lambda: [len(chains) for chains in standing()] == [2, 2])
    first, second = standing()
    assert first == second
    assert sorted(daemon.leftovers()["spare_chains"]) == sorted(first)
    assert "0 running, 2 chains spare, 0 left over\n" in daemon.admin("leftovers").stdout
