"""R01: a client that openapi-python-client makes from openapi.yaml has types and works."""

import subprocess
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from harness.backend import Backend
from harness.daemon import Daemon

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package `motte_client`, made from openapi.yaml without a warning."""
    folder = tmp_path_factory.mktemp("generated")
    config = folder / "config.yml"
    config.write_text(
        "content_type_overrides:\n"
        "  application/yaml: application/json\n"
        "  application/x-tar: application/octet-stream\n"
    )
    make = [
        "openapi-python-client", "generate", "--path", str(ROOT / "openapi.yaml"), "--meta", "none",
        "--output-path", str(folder / "motte_client"), "--config", str(config), "--fail-on-warning",
    ]  # fmt: skip
    done = subprocess.run(make, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_R01_a_generated_client_has_types_that_hold(generated: Path) -> None:
    # Its client.py is the same for every contract, and gives `object` where types are wanted.
    (generated / "mypy.ini").write_text(
        "[mypy]\n[mypy-motte_client.client]\nignore_errors = True\n"
    )
    done = subprocess.run(
        ["mypy", "--disallow-untyped-calls", "motte_client"],
        check=False,
        capture_output=True,
        text=True,
        cwd=generated,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_R01_a_generated_client_lives_a_vm_through(
    generated: Path, daemon: Daemon, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers and errors come as its own types."""
    monkeypatch.syspath_prepend(str(generated))
    api, models = (import_module(f"motte_client.{name}") for name in ("api", "models"))
    create, get, delete, run = (
        import_module(f"{api.__name__}.{name}").sync
        for name in ("vms.create_vm", "vms.get_vm", "vms.delete_vm", "exec_.exec_in_vm")
    )
    transport = httpx.HTTPTransport(uds=str(daemon.socket_path))
    client = import_module("motte_client").Client(
        base_url="http://motte", httpx_args={"transport": transport}
    )
    vm = create(client=client, body=models.VmSpec(id="made", memory_mib=backend.memory_mib))
    assert isinstance(vm, models.Vm), vm
    assert vm.labels.additional_properties == {}
    done = run("made", client=client, body=models.ExecRequest(argv=["/bin/echo", "hello"]))
    assert isinstance(done, models.ExecResult), done
    assert (done.exit_code, done.stdout) == (0, "hello\n")
    delete("made", client=client)
    gone = get("made", client=client)
    assert gone.code == "vm_gone"
    assert gone.context["reason"] == "deleted"
    refused = create(client=client, body=models.VmSpec(memory_mib=1))
    assert isinstance(refused, models.Problem), refused
    assert refused.code == "out_of_range"
