"""The host as the tests see it from outside: firewall, processes, cgroups, mounts."""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
TABLES = ("filter", "nat", "mangle", "raw", "security")
LOCK = Path("/run/xtables.lock")


def enter_own_host(lock: Path) -> None:
    """A network namespace for this process and all it starts, and a lock file of that network's
    own, so that nothing here waits for the host's firewall or holds it up. Refuses to go on
    without."""
    before = os.readlink("/proc/self/ns/net")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "cannot unshare the network: run the tests as root")
    if os.readlink("/proc/self/ns/net") == before:
        raise RuntimeError("still in the host's network namespace: not touching its firewall")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    LOCK.touch(mode=0o600)
    lock.touch(mode=0o600)
    subprocess.run(["mount", "--bind", str(lock), str(LOCK)], check=True)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Another program holds the firewall's lock."""
    with LOCK.open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*argv: str, check: bool = True, lock: str | None = None) -> str:
    """`lock`: the lock file of an iptables program that does not heed the real one."""
    env = os.environ if lock is None else {**os.environ, "XTABLES_LOCKFILE": lock}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=env)
    if check and done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def firewall() -> dict[str, list[str]]:
    """Every rule and policy of every legacy table of both families, without counters."""
    return {
        f"{program} {table}": run(program, "-w", "5", "-t", table, "-S").splitlines()
        for program in ("iptables-legacy", "ip6tables-legacy")
        for table in TABLES
    }


VM_CHAIN = re.compile(r"\bMOTTE_[0-9a-f]{20}\b")
INNER_CHAIN = re.compile(r"\bMOTTE_[uio]_[0-9a-f]+\b")


def chain_of(instance: str) -> str:
    return "MOTTE_" + hashlib.sha256(instance.encode()).hexdigest()[:20]


def is_about(line: str, chains: set[str]) -> bool:
    """A rule of one of these chains, or of the tree that leads to VMs' chains and has no other
    purpose; not of the roots, which stand as long as the daemon."""
    named = set(VM_CHAIN.findall(line))
    return bool(named & chains) or (not named and INNER_CHAIN.search(line) is not None)


def counted_rules() -> list[str]:
    """Every rule with its counters, of every legacy table of both families; policies have theirs
    set to 0 by each commit of anyone."""
    return [
        line
        for program in ("iptables-legacy-save", "ip6tables-legacy-save")
        for table in TABLES
        for line in run(program, "-c", "-t", table).splitlines()
        if not line.startswith(("#", ":"))
    ]


def status_of(pid: int, thread: int | None = None) -> dict[str, str]:
    """/proc/PID/status as a dictionary."""
    path = Path(f"/proc/{pid}/task/{thread}/status" if thread else f"/proc/{pid}/status")
    pairs = (line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: value.strip() for name, value in pairs}


def processor_s(pid: int) -> float:
    """Processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_landlock() -> bool:
    """Asks for its version."""
    landlock_create_ruleset, version = 444, 1
    return int(ctypes.CDLL(None).syscall(landlock_create_ruleset, None, 0, version)) > 0


def processes() -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def processes_of_uids(first: int, count: int, parent: int | None = None) -> dict[int, int]:
    """pid -> uid of all whose real uid is in the range. Dead ones that nobody has waited for count
    only as children of `parent`: whom init inherits is not ours to judge."""
    found = {}
    for pid in processes():
        try:
            status = status_of(pid)
            uid = int(status["Uid"].split()[0])
        except (OSError, KeyError):
            continue
        dead = status["State"].startswith("Z") and int(status["PPid"]) != parent
        if first <= uid < first + count and not dead:
            found[pid] = uid
    return found


def command_lines(name: str) -> list[str]:
    """Of every process that runs a program of this name."""
    found = []
    for pid in processes():
        try:
            if status_of(pid)["Name"] == name:
                found.append(Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"))
        except (OSError, KeyError):
            continue
    return found


def children(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        path = Path(f"/proc/{pid}/task/{thread}/children")
        found += [int(word) for word in path.read_text(encoding="utf-8").split()]
    return found


def cgroups_named(root: str) -> list[str]:
    """Every directory below a cgroup of this name, in any hierarchy."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, tail = line.partition(" - ")
        if not tail.startswith("cgroup"):
            continue
        base = Path(fields.split()[4]) / root
        if base.is_dir():
            found += [str(path) for path in base.iterdir() if path.is_dir()]
    return sorted(found)


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{folder}/")]


def namespaces_alive(within: Collection[int] | None = None) -> set[str]:
    """ "net:[4026531840]" and the like: what the processes (all, or these) live in or hold open. A
    namespace with neither is gone, but for a mount of it, which mounts_below() sees."""
    found = set()
    for pid in processes() if within is None else within:
        for folder in ("ns", "fd"):
            try:
                names = [entry.path for entry in os.scandir(f"/proc/{pid}/{folder}")]
            except OSError:
                continue
            for name in names:
                with contextlib.suppress(OSError):
                    found.add(os.readlink(name))
    return {target for target in found if re.fullmatch(r"[a-z]+:\[\d+\]", target)}


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
