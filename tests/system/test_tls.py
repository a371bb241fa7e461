"""TLS: the same service, encrypted; nothing else is spoken there, and nobody notices a new
certificate but who connects anew."""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from test_reload import REFUSED, RELOADED, Configured
from test_routes import answers
from test_tcp import ADMIN, ALICE, bearer, free_port, refused_start, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

HANDSHAKE_S = 5  # as long as a client has for the headers of its first request


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    return certificate, key


class Encrypted(Configured):
    """Serves TLS on every address, and the Unix socket."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        super().__init__(backend, folder)
        self.certificate, self.key = make_certificate(folder, "first")
        self.fixed |= {
            "listen": f"tls:0.0.0.0:{self.port}\nlisten = unix:{self.socket_path}",
            "tls-certificate": str(self.certificate),
            "tls-key": str(self.key),
        }
        self.write()

    @property
    def address(self) -> str:
        return f"https://localhost:{self.port}"

    def serves(self) -> bytes:
        """The certificate that a new connection is shown."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock,
            context.wrap_socket(sock) as encrypted,
        ):
            shown = encrypted.getpeercert(binary_form=True)
        assert shown is not None
        return shown


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


@pytest.fixture
def daemon(backend: Backend, keeper: object, start: object, tmp_path: Path) -> Iterator[Encrypted]:
    daemon = Encrypted(backend, tmp_path)
    daemon.start()
    yield daemon
    daemon.close()


def curl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "-sS", "--max-time", "20", *words], check=False, capture_output=True, text=True
    )


def test_R01_every_route_is_served_over_tls_as_on_the_socket(
    daemon: Encrypted, connect: Callable[..., Client], contract: Contract
) -> None:
    encrypted = connect(daemon.address, bearer(ADMIN), daemon.certificate)
    local = connect(daemon)
    for method, path in contract.operations():
        statuses = answers(encrypted, method, path), answers(local, method, path)
        assert statuses[0] == statuses[1], f"{method} {path}: {statuses}"
    connect(daemon.address, None, daemon.certificate).problem(401, "unauthorized", "GET", "/vms")


def test_R01_a_vm_lives_over_tls(
    daemon: Encrypted, connect: Callable[..., Client], backend: Backend
) -> None:
    alice = connect(daemon.address, bearer(ALICE), daemon.certificate)
    alice.create(id="vm", memory_mib=backend.memory_mib)
    assert alice.exec("vm", ["/bin/echo", "x" * 60000]).out == "x" * 60000 + "\n"
    alice.delete("vm")
    alice.problem(404, "vm_gone", "GET", "/vms/vm")
    assert daemon.vmms() == {}


def test_R11_curl_is_served_by_tls_12_and_13_alone(daemon: Encrypted) -> None:
    token = ["-H", f"Authorization: Bearer {ALICE}"]
    asked = [*token, "--cacert", str(daemon.certificate), f"{daemon.address}/vms"]
    for version in ("1.2", "1.3"):
        done = curl(f"--tlsv{version}", "--tls-max", version, *asked)
        assert '"vms"' in done.stdout, done.stderr
    for words in (
        ["--tls-max", "1.1", "--tlsv1.0", "--ciphers", "DEFAULT@SECLEVEL=0", *asked],
        [*token, f"{daemon.address}/vms"],  # a certificate that nobody trusts
        [*token, f"http://localhost:{daemon.port}/vms"],
    ):
        done = curl(*words)
        assert done.returncode != 0
        assert done.stdout == ""


def test_R31_whoever_does_not_finish_the_handshake_is_cut(
    daemon: Encrypted, connect: Callable[..., Client]
) -> None:
    context = ssl.create_default_context(cafile=daemon.certificate)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    hello = outgoing.read()
    begun = time.monotonic()
    silent = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(50)]
    for sock, said in zip(
        silent, (b"", hello[:40], hello, b"GET / HTTP/1.1\r\n\r\n"), strict=False
    ):
        sock.sendall(said)
    connect(daemon.address, bearer(ALICE), daemon.certificate).list()
    for sock in silent:
        sock.settimeout(4 * HANDSHAKE_S)
        try:
            while (got := sock.recv(65536)) != b"":
                assert not got.startswith(b"HTTP"), "plain text on a TLS listener"
        except ConnectionResetError:
            pass
        sock.close()
    assert time.monotonic() - begun < 3 * HANDSHAKE_S


def from_where(client: Client) -> object:
    """Which connection it has."""
    stream = client.expect(200, "GET", "/vms").extensions["network_stream"]
    return stream.get_extra_info("client_addr")


def test_R02_a_new_certificate_is_for_new_connections(
    daemon: Encrypted, connect: Callable[..., Client], tmp_path: Path
) -> None:
    standing = connect(daemon.address, bearer(ALICE), daemon.certificate)
    before = from_where(standing)
    assert daemon.serves() == der(daemon.certificate)
    certificate, key = make_certificate(tmp_path, "second")
    old = daemon.certificate.read_bytes()
    daemon.certificate.write_bytes(certificate.read_bytes())
    said = daemon.reload()  # half of the change
    assert REFUSED in said
    assert "not the key" in said
    assert daemon.serves() == ssl.PEM_cert_to_DER_cert(old.decode())
    daemon.key.write_bytes(key.read_bytes())
    assert RELOADED in daemon.reload()
    assert daemon.serves() == der(certificate)
    assert from_where(standing) == before, "it did not have to connect again"
    connect(daemon.address, bearer(ALICE), certificate).list()
    for text, mode, words in (
        ("", 0o600, "no PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "no PEM"),
        (key.read_text(), 0o640, "chmod 600"),
    ):
        daemon.key.write_text(text, encoding="utf-8")
        daemon.key.chmod(mode)
        said = daemon.reload()
        assert REFUSED in said
        assert words in said
        assert daemon.serves() == der(certificate)
    assert "PRIVATE" not in daemon.log


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("tls-key", "need each other"),
        ("tls-certificate", "need each other"),
        ("both", "give --tls-certificate and --tls-key"),
        ("token-file", "give --token-file"),
    ],
)
def test_R11_tls_without_what_it_needs_is_refused(
    start: Callable[..., Daemon], tmp_path: Path, without: str, words: str
) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    options = {
        "listen": f"tls:127.0.0.1:{free_port()}",
        "token-file": str(write_tokens(tmp_path)),
        "tls-certificate": str(certificate),
        "tls-key": str(key),
    }
    for name in [without] if without != "both" else ["tls-key", "tls-certificate"]:
        del options[name]
    daemon = start([f"--{name}={value}" for name, value in options.items()], running=False)
    assert words in refused_start(daemon)
