"""The Debian package: well-formed, installs below another root, and goes without a trace."""

import gzip
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks import tree

HIGHER = "9.9"
CONFIGURATION = "etc/motte/motted.conf"


def build(out: Path, *options: str) -> Path:
    done = tree.run(
        tree.ROOT / "deploy" / "make-deb.sh", "-b", tree.programs_folder(), *options, out
    )
    assert done.returncode == 0, done.stderr
    (package,) = out.glob("*.deb")
    return package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("upgrade"), "-v", HIGHER)


def field(package: Path, name: str) -> str:
    return tree.run("dpkg-deb", "--field", package, name).stdout.strip()


def test_R39_the_package_says_what_it_is_and_needs(package: Path) -> None:
    cmake = (tree.ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    version = re.search(r"^project\(motte VERSION (\S+)", cmake, re.M)
    assert version is not None
    assert package.name == f"motte_{version.group(1)}_amd64.deb"
    assert field(package, "Version") == version.group(1)
    needed = field(package, "Depends")
    for library in (
        "libc6", "libmicrohttpd12", "libsqlite3-0", "libseccomp2", "libip4tc2", "libcurl3",
    ):  # fmt: skip
        assert library in needed, needed
    listed = tree.run("dpkg-deb", "--contents", package).stdout.splitlines()
    owners = {line.split()[1] for line in listed}
    assert owners == {"root/root"}
    writable = [line for line in listed if line[5] == "w" or line[8] == "w"]
    assert writable == []
    assert not any("/usr/local" in line or "example" in line for line in listed)


def test_R39_the_packages_files_agree_with_each_other(package: Path, tmp_path: Path) -> None:
    tree.run("dpkg-deb", "--raw-extract", package, tmp_path)
    unit = (tmp_path / "usr/lib/systemd/system/motted.service").read_text(encoding="utf-8")
    assert f"ExecStart=/usr/bin/motted --config=/{CONFIGURATION}" in unit
    assert "/usr/local" not in unit
    assert (tmp_path / "usr/bin/motted").exists()
    assert (tmp_path / "DEBIAN/conffiles").read_text(encoding="utf-8") == f"/{CONFIGURATION}\n"
    sums = (tmp_path / "DEBIAN/md5sums").read_text(encoding="utf-8").splitlines()
    files = {str(p.relative_to(tmp_path)) for p in (tmp_path / "usr").rglob("*") if p.is_file()}
    assert {line.split("  ", 1)[1] for line in sums} == files
    page = gzip.decompress((tmp_path / "usr/share/man/man1/motte.1.gz").read_bytes())
    assert page.startswith(b".TH MOTTE 1")
    assert (tmp_path / "usr/share/bash-completion/completions/motte").read_text().startswith("#")
    changes = gzip.decompress((tmp_path / "usr/share/doc/motte/changelog.gz").read_bytes())
    assert changes.startswith(f"motte ({field(package, 'Version')})".encode())
    for script in ("postinst", "prerm", "postrm"):
        done = tree.run("shellcheck", "--shell=sh", tmp_path / "DEBIAN" / script)
        assert done.returncode == 0, done.stdout


def test_R39_the_same_build_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()


class Root:
    """A dpkg with a database of its own; what it depends on is taken for granted. Maintainer
    scripts run with DPKG_ROOT: they must touch nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("info", "updates", "triggers"):
            (path / "var/lib/dpkg" / name).mkdir(parents=True)
        (path / "var/lib/dpkg/status").touch()
        (path / "var/lib/dpkg/available").touch()
        (path / "etc").mkdir()
        for name in ("passwd", "group"):
            (path / "etc" / name).write_text(
                "root:x:0:0::/:/bin/sh\n" if name == "passwd" else "root:x:0:\n"
            )

    def dpkg(self, *words: str | Path) -> str:
        done = subprocess.run(
            [
                "dpkg", f"--root={self.path}", "--force-script-chrootless", "--force-depends",
                "--force-confold", "--log=/dev/null", *map(str, words),
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def names(self) -> set[str]:
        """Everything but dpkg's own and what useradd's kind leaves as copies."""
        found = {str(path.relative_to(self.path)) for path in self.path.rglob("*")}
        return {
            name for name in found if not name.startswith("var/lib/dpkg") and not name.endswith("-")
        }

    def accounts(self) -> str:
        return "".join((self.path / "etc" / name).read_text() for name in ("passwd", "group"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path / "root")
    yield root
    shutil.rmtree(root.path)


def test_R20_the_package_installs_upgrades_and_goes_without_a_trace(
    root: Root, package: Path, upgrade: Path
) -> None:
    before, accounts = root.names(), root.accounts()
    said = root.dpkg("--install", package)
    assert "motted doctor" in said
    assert re.search(r"^motte:x:\d+:\d+:.*:/usr/sbin/nologin$", root.accounts(), re.M)
    links = [path for path in (root.path / "etc").rglob("*") if path.is_symlink()]
    assert links == [], "nothing is enabled by itself"
    configuration = root.path / CONFIGURATION
    with configuration.open("a") as file:
        file.write("max-vms = 7\n")
    state = root.path / "var/lib/motte/front/motte.db"
    state.parent.mkdir(parents=True)
    state.touch()
    wants = root.path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "motted.service").symlink_to("/lib/systemd/system/motted.service")

    assert "motted doctor" not in root.dpkg("--install", upgrade)
    assert "Version: 9.9" in (root.path / "var/lib/dpkg/status").read_text()
    assert configuration.read_text().endswith("max-vms = 7\n"), "what was set stays"
    assert state.exists()

    root.dpkg("--remove", "motte")
    assert not (root.path / "usr/bin/motted").exists()
    assert not (wants / "motted.service").is_symlink()
    assert configuration.exists()
    assert state.exists()

    root.dpkg("--purge", "motte")
    left = {name for name in root.names() - before if not name.startswith("etc/systemd")}
    assert {name for name in left if "motte" in name} == set()
    assert {name for name in left if not (root.path / name).is_dir()} <= {
        "etc/.pwd.lock",
        "etc/shadow",
        "etc/gshadow",
    }
    assert root.accounts() == accounts
