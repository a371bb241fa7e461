"""Files of a VM over HTTP: bytes in and out, whole or not at all."""

import base64
import hashlib
import http.client
import io
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.waiting import wait_until

SIZES = (0, 1, 18 * 1024, 128 * 1024, 5 * 1024 * 1024 + 7)
MAX = 1 << 30
GROWTH_MIB = 4
WORKERS = 64  # server/server.c: API_POOL_FILES


@pytest.fixture(scope="module")
def vm(shared: Daemon, contract: Contract, backend: Backend) -> Iterator[str]:
    """One VM for the whole file."""
    client = Client(contract, str(shared.socket_path))
    client.create(id="files", memory_mib=backend.memory_mib)
    yield "files"
    client.delete("files")
    client.close()


@pytest.fixture
def client(shared: Daemon, connect: Callable[..., Client]) -> Client:
    return connect(shared)


def url(path: str, vm: str = "files") -> str:
    return str(httpx.URL(f"/vms/{vm}/files", params={"path": path}))


def digest(data: bytes) -> str:
    return "sha-256=:" + base64.b64encode(hashlib.sha256(data).digest()).decode() + ":"


@pytest.mark.core
@pytest.mark.parametrize("size", SIZES)
def test_R29_a_file_of_any_size_goes_up_and_comes_back(client: Client, vm: str, size: int) -> None:
    data = os.urandom(size)
    for content in (data, iter([data[: size // 3], data[size // 3 :]])):  # length known, or not
        told = client.expect(
            200, "PUT", url("/tmp/up"), content=content, headers={"Repr-Digest": digest(data)}
        ).json()
        assert told == {
            "path": "/tmp/up",
            "size": size,
            "mode": "0644",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        back = client.expect(200, "GET", url("/tmp/up"))
        assert back.headers["content-length"] == str(size)
        assert back.content == data
    client.expect(204, "DELETE", url("/tmp/up"))
    client.problem(404, "file_not_found", "DELETE", url("/tmp/up"))


def test_R06_a_refusal_shows_no_half_of_a_character(client: Client, vm: str) -> None:
    for text in ("é" * 100, "é" * 99 + "x", "😀" * 50):
        client.problem(404, "file_not_found", "GET", url(f"/{text}"))


def test_R31_another_digest_writes_nothing(client: Client, vm: str) -> None:
    for name in ("Repr-Digest", "Content-Digest"):
        headers = {name: digest(b"something else")}
        client.problem(
            400, "digest_mismatch", "PUT", url("/tmp/no"), content=b"bytes", headers=headers
        )
        client.problem(404, "file_not_found", "DELETE", url("/tmp/no"))
    unknown = {"Repr-Digest": "md5=:AAAA:"}
    client.problem(400, "bad_request", "PUT", url("/tmp/no"), content=b"bytes", headers=unknown)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "invalid_query"),
        ("path=relative", "invalid_query"),
        ("path=/a%00b", "invalid_query"),
        ("path=/a%ff", "invalid_query"),
        ("path=/a&mode=9", "invalid_query"),
        ("path=/a&mode=17777", "invalid_query"),
        ("path=/a&parents=1", "invalid_query"),
        ("path=/a&owner=me", "invalid_query"),
        ("path=/" + "a" * 1024, "invalid_query"),
    ],
)
def test_R10_bad_queries_are_refused(client: Client, vm: str, query: str, code: str) -> None:
    client.problem(400, code, "PUT", f"/vms/{vm}/files?{query}", content=b"x")


def test_R31_an_early_refusal_keeps_the_connection(client: Client, vm: str) -> None:
    big = bytes(3 * 1024 * 1024)
    for _ in range(3):
        client.problem(404, "vm_not_found", "PUT", url("/tmp/x", "nobody"), content=big)
        client.problem(400, "invalid_query", "PUT", f"/vms/{vm}/files?path=x", content=big)
    media = {"Content-Type": "application/json"}
    client.problem(415, "unsupported_media_type", "PUT", url("/x"), content=b"{}", headers=media)


def head(path: str, length: int, vm: str = "files") -> bytes:
    return (
        f"PUT {url(path, vm)} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        "Expect: 100-continue\r\n\r\n"
    ).encode()


def test_R31_more_than_there_may_be_is_refused_before_it_is_sent(
    shared: Daemon, client: Client, vm: str
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(shared.socket_path))
        sock.sendall(head("/tmp/x", MAX + 1))
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_R31_an_upload_that_breaks_off_leaves_nothing(
    shared: Daemon, client: Client, vm: str
) -> None:
    client.expect(200, "PUT", url("/tmp/kept"), content=b"before")
    for sent in (0, 1, 1 << 20):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(shared.socket_path))
            sock.sendall(head("/tmp/kept", 4 << 20))
            assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
            sock.sendall(bytes(sent))
    assert client.exec(vm, ["echo", "alive"]).out == "alive\n"
    assert client.expect(200, "GET", url("/tmp/kept")).content == b"before"


def pieces(size: int) -> Iterator[bytes]:
    """Bytes that differ from piece to piece, made once."""
    base = os.urandom(1 << 20)
    for number in range(size >> 20):
        yield number.to_bytes(8, "big") + base[8:]


def rss_mib(daemon: Daemon) -> float:
    return int(host.status_of(daemon.front_pid)["VmRSS"].split()[0]) / 1024


@pytest.mark.testguest  # Linux under emulation takes minutes
def test_R31_a_gibibyte_goes_up_and_down_and_the_front_stays_as_small(
    shared: Daemon, client: Client, vm: str
) -> None:
    client.create(id="large", memory_mib=MAX // (1 << 20) + 128)
    before, sizes = rss_mib(shared), [0.0]
    up, down = hashlib.sha256(), hashlib.sha256()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(shared.socket_path))
        sock.sendall(head("/tmp/large", MAX, "large"))
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        for piece in pieces(MAX):
            up.update(piece)
            sock.sendall(piece)
            sizes.append(rss_mib(shared))
        told = http.client.HTTPResponse(sock)
        told.begin()
        answer = json.loads(told.read())
        assert (answer["size"], answer["sha256"]) == (MAX, up.hexdigest())
        sock.sendall(f"GET {url('/tmp/large', 'large')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        back = http.client.HTTPResponse(sock)
        back.begin()
        assert back.getheader("content-length") == str(MAX)
        while piece := back.read(1 << 20):
            down.update(piece)
            sizes.append(rss_mib(shared))
    assert down.digest() == up.digest()
    client.delete("large")
    assert max(sizes) - before < GROWTH_MIB, f"from {before:.1f} to {max(sizes):.1f} MiB"


def test_R31_a_download_that_is_given_up_gives_its_worker_back(
    shared: Daemon, client: Client, vm: str
) -> None:
    """More of them than there are workers, one after another."""
    client.expect(200, "PUT", url("/tmp/long"), content=os.urandom(4 << 20))
    for _ in range(WORKERS + 8):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(shared.socket_path))
            sock.sendall(f"GET {url('/tmp/long')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert len(client.expect(200, "GET", url("/tmp/long")).content) == 4 << 20


@pytest.mark.parametrize(
    ("wish", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=65530-65550", 65530, 65550), ("bytes=199999-", 199999, 199999),
     ("bytes=-70000", 130000, 199999), ("bytes=10-999999", 10, 199999)],
)  # fmt: skip
def test_R29_a_part_of_a_file(client: Client, vm: str, wish: str, first: int, last: int) -> None:
    data = bytes(number * number % 251 for number in range(200_000))
    client.expect(200, "PUT", url("/tmp/part"), content=data)
    part = client.expect(206, "GET", url("/tmp/part"), headers={"Range": wish})
    assert part.headers["content-range"] == f"bytes {first}-{last}/200000"
    assert part.content == data[first : last + 1]
    whole = client.expect(200, "GET", url("/tmp/part"), headers={"Range": "bytes=0-1,5-6"})
    assert whole.content == data


def test_R31_a_part_that_is_not_there(client: Client, vm: str) -> None:
    client.expect(200, "PUT", url("/tmp/short"), content=b"0123456789")
    for wish in ("bytes=10-", "bytes=-0"):
        answer = client.request("GET", url("/tmp/short"), headers={"Range": wish})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == "bytes */10"


def test_R29_a_digest_of_all_comes_before_the_bytes_where_it_is_asked_for(
    client: Client, vm: str
) -> None:
    data = os.urandom(200_001)
    client.expect(200, "PUT", url("/tmp/known"), content=data)
    asked = url("/tmp/known") + "&digest=sha-256"
    whole = client.expect(200, "GET", asked)
    assert (whole.headers["repr-digest"], whole.content) == (digest(data), data)
    part = client.expect(206, "GET", asked, headers={"Range": "bytes=1-3"})
    assert (part.headers["repr-digest"], part.content) == (digest(data), data[1:4])
    assert "repr-digest" not in client.expect(200, "GET", url("/tmp/known")).headers
    client.problem(400, "invalid_query", "GET", url("/tmp/known") + "&digest=md5")
    client.problem(404, "file_not_found", "GET", url("/tmp/unknown") + "&digest=sha-256")


def test_R29_an_if_range_is_answered_whole(client: Client, vm: str) -> None:
    client.expect(200, "PUT", url("/tmp/whole"), content=b"0123456789")
    for validator in ('"x"', "Thu, 01 Jan 2026 00:00:00 GMT"):
        headers = {"Range": "bytes=2-3", "If-Range": validator}
        whole = client.expect(200, "GET", url("/tmp/whole"), headers=headers)
        assert whole.content == b"0123456789"


def listed(client: Client, path: str, **query: str | int) -> dict[str, Any]:
    answer: dict[str, Any] = client.expect(
        200, "GET", "/vms/files/ls", params={"path": path, **query}
    ).json()
    return answer


def pages(client: Client, path: str, limit: int) -> list[dict[str, Any]]:
    """By the Link header of each to the next."""
    found: list[dict[str, Any]] = []
    link: str | None = str(httpx.URL("/vms/files/ls", params={"path": path, "limit": limit}))
    while link is not None:
        answer = client.expect(200, "GET", link)
        page = answer.json()
        assert len(page["entries"]) == limit or page["next_cursor"] is None
        found += page["entries"]
        assert ("next" in answer.links) == (page["next_cursor"] is not None)
        link = answer.links["next"]["url"] if "next" in answer.links else None
    return found


@pytest.mark.core
def test_R06_a_list_of_names_of_any_kind_in_pages_and_in_order(client: Client, vm: str) -> None:
    names = ["a b", "a&b=c?d#e%25", "é", "😀", '"', "\\n", "\x01", "~", "..."]
    for name in names:
        query = {"path": f"/lists/here & there/{name}", "mode": "0600", "parents": "true"}
        client.expect(200, "PUT", "/vms/files/files", params=query, content=name.encode())
    whole = listed(client, "/lists/here & there")
    assert whole["next_cursor"] is None
    assert [entry["name"] for entry in whole["entries"]] == sorted(names, key=str.encode)
    for entry in whole["entries"]:
        assert (entry["type"], entry["mode"]) == ("file", "0600")
        assert entry["size"] == len(entry["name"].encode())
    for limit in (1, 4, 9):
        assert pages(client, "/lists/here & there", limit) == whole["entries"]


def test_R10_a_bad_list_is_refused(client: Client, vm: str) -> None:
    for query in ("limit=0", "limit=501", "limit=x", "cursor=", "cursor=6", "cursor=6g", "mode=1",
                  "cursor=" + "61" * 256, "limit=1&limit=2", "path=/b"):  # fmt: skip
        client.problem(400, "invalid_query", "GET", f"/vms/{vm}/ls?path=/tmp&{query}")
    client.problem(400, "invalid_query", "GET", f"/vms/{vm}/ls")


@pytest.mark.linux
def test_R06_a_list_tells_what_is_no_text_and_follows_no_link(client: Client, vm: str) -> None:
    script = (
        "mkdir -p /lists/odd/dir && cd /lists/odd && printf x > \"$(printf '\\377a')\" && mkfifo f"
        " && ln -s \"$(printf '../\\376')\" bad && ln -s /etc/passwd good"
        " && touch -d @99999999999999 z"
        " && ln -s /lists/odd /lists/way"
    )
    assert client.exec(vm, ["sh", "-c", script]).code == 0
    entries = listed(client, "/lists/way")["entries"]
    for entry in entries:
        entry.pop("size"), entry.pop("mode")
    times = [entry.pop("mtime") for entry in entries]
    assert entries == [
        {"name": "bad", "type": "symlink", "target": None, "target_base64": "Li4v/g=="},
        {"name": "dir", "type": "directory"},
        {"name": "f", "type": "fifo"},
        {"name": "good", "type": "symlink", "target": "/etc/passwd"},
        {"name": "z", "type": "file"},
        {"name": None, "name_base64": "/2E=", "type": "file"},
    ]
    assert times[4] is None
    assert all(times[:4])
    client.problem(422, "guest_refused", "DELETE", url("/lists/odd"))
    client.expect(204, "DELETE", url("/lists/odd") + "&recursive=true")
    client.problem(404, "file_not_found", "GET", f"/vms/{vm}/ls?path=/lists/odd")
    assert client.exec(vm, ["wc", "-c", "/etc/passwd"]).code == 0


def tar_of(*members: tuple[str, bytes, str, str], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Of (name, type, target or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, target, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


def archive(path: str) -> str:
    return str(httpx.URL("/vms/files/archive", params={"path": path}))


TAR = {"Content-Type": "application/x-tar"}


@pytest.mark.linux
def test_R29_a_directory_goes_up_and_comes_back_as_tar(client: Client, vm: str) -> None:
    long = "d/" + "é" * 90 + "/" + "n" * 200
    big = "0123456789abcdef" * 20_000
    packed = tar_of(
        ("d/", tarfile.DIRTYPE, "", ""), (long, tarfile.REGTYPE, "", "long"),
        ("big", tarfile.REGTYPE, "", big), ("l", tarfile.SYMTYPE, "/etc/passwd", ""),
        ("hard", tarfile.LNKTYPE, "big", ""),
    )  # fmt: skip
    headers = TAR | {"Repr-Digest": digest(packed)}
    for created in (True, False):  # the second time over the first
        told = client.expect(200, "PUT", archive("/tmp/tree"), content=packed, headers=headers)
        assert told.json() == {
            "path": "/tmp/tree",
            "entries": 5,
            "size": len(big) + 4,
            "created": created,
        }
    back = client.expect(200, "GET", archive("/tmp/tree"))
    assert back.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(back.content)) as tar:
        found = {member.name: member for member in tar.getmembers()}
        assert set(found) == {"d", long.rpartition("/")[0], long, "big", "l", "hard"}
        assert (found["l"].type, found["l"].linkname) == (tarfile.SYMTYPE, "/etc/passwd")
        for name, content in ((long, "long"), ("big", big), ("hard", big)):
            file = tar.extractfile(name)
            assert file is not None
            assert file.read().decode() == content
    client.expect(204, "DELETE", url("/tmp/tree") + "&recursive=true")
    client.problem(404, "file_not_found", "GET", archive("/tmp/tree"))


@pytest.mark.linux
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (("../evil", tarfile.REGTYPE, "", "x"), "`..`"),
        (("/tmp/evil", tarfile.REGTYPE, "", "x"), "absolute"),
        (("way/evil", tarfile.REGTYPE, "", "x"), "link"),
        (("hard", tarfile.LNKTYPE, "../etc/passwd", ""), "`..`"),
        (("null", tarfile.CHRTYPE, "", ""), "neither"),
    ],
)
def test_R31_an_archive_that_reaches_out_leaves_nothing(
    client: Client, vm: str, bad: tuple[str, bytes, str, str], words: str
) -> None:
    packed = tar_of(("way", tarfile.SYMTYPE, "..", ""), bad)
    problem = client.problem(
        422, "archive_invalid", "PUT", archive("/tmp/tree"), content=packed, headers=TAR
    )
    assert words in problem["detail"]
    assert bad[0] in problem["detail"]
    for path in ("/tmp/tree", "/tmp/evil"):
        client.problem(404, "file_not_found", "DELETE", url(path))


@pytest.mark.linux
def test_R31_an_archive_that_does_not_come_whole_leaves_nothing(
    shared: Daemon, client: Client, vm: str
) -> None:
    packed = tar_of(("f", tarfile.REGTYPE, "", "x" * 5000))
    wrong = TAR | {"Repr-Digest": digest(b"another")}
    client.problem(
        400, "digest_mismatch", "PUT", archive("/tmp/tree"), content=packed, headers=wrong
    )
    client.problem(
        422, "archive_invalid", "PUT", archive("/tmp/tree"), content=packed[:3000], headers=TAR
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(shared.socket_path))
        sock.sendall(head("/tmp/tree", len(packed)).replace(b"/files?", b"/archive?"))
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        sock.sendall(packed[:-100])
    left = ["sh", "-c", "ls -A /tmp | grep -e tree -e motte"]  # on a serial port it takes a second
    wait_until(lambda: client.exec(vm, left).code == 1, 10, "something of it is still there")


@pytest.mark.linux
def test_R31_files_end_before_the_guests_memory_does(client: Client, vm: str) -> None:
    """On a file system that would take more than there is; the guest lives on."""
    fill = (
        "mkdir -p /room && mount -t tmpfs -o size=100% none /room && fallocate -l"
        " $(awk '/MemAvailable/ {print $2 - 30720}' /proc/meminfo)K /room/a"
    )
    assert client.exec(vm, ["sh", "-c", fill]).code == 0
    big = bytes(24 << 20)
    problem = client.problem(507, "guest_full", "PUT", url("/room/b"), content=big)
    assert "No space" in problem["detail"]
    assert client.exec(vm, ["sh", "-c", "umount /room"]).code == 0
    client.expect(200, "PUT", url("/tmp/after"), content=big[:1000])
