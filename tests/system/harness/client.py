"""An HTTP client for the tests: every answer goes past the contract."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from .contract import Contract
from .waiting import wait_until


@dataclass(frozen=True)
class Exec:
    """What an exec answered."""

    code: int | None
    signal: int | None
    out: str
    err: str
    body: dict[str, Any]


class Refused(Exception):
    """An answer that the caller did not expect; shows the problem document."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.problem: dict[str, Any] = response.json() if response.content else {}
        super().__init__(f"{response.status_code}: {response.text[:1500]}")


class Client:
    """One caller. `address` is the path of a Unix socket or an http:// or https:// base URL;
    `trust` a file of the certificates that the latter may have."""

    def __init__(
        self,
        contract: Contract,
        address: str,
        headers: dict[str, str] | None = None,
        trust: Path | None = None,
    ) -> None:
        self.contract = contract
        self.address = address
        tcp = address.startswith(("http://", "https://"))
        context = ssl.create_default_context(cafile=trust) if trust else True
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(verify=context, uds=None if tcp else address),
            base_url=address if tcp else "http://motte",
            headers=headers,
            timeout=httpx.Timeout(300.0, connect=10.0),
            event_hooks={"response": [self._check]},
        )

    def close(self) -> None:
        self.http.close()

    def _check(self, response: httpx.Response) -> None:
        response.read()
        media = response.headers.get("content-type", "")
        body: object = response.text
        if "json" in media:
            body = json.loads(response.content)
        elif "yaml" in media:
            body = yaml.safe_load(response.content)
        request = response.request
        self.contract.check(request.method, request.url.path, response.status_code, media, body)
        if response.status_code >= 400:
            self.contract.check_problem(body, f"{request.method} {request.url.path}")

    # -- requests -------------------------------------------------------------------------------

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        return self.http.request(method, path, **kwargs)

    def expect(self, status: int, method: str, path: str, **kwargs: Any) -> httpx.Response:
        response = self.request(method, path, **kwargs)
        if response.status_code != status:
            raise Refused(response)
        return response

    def problem(
        self, status: int, code: str, method: str, path: str, **kwargs: Any
    ) -> dict[str, Any]:
        """Asks for something that must be refused, and how."""
        response = self.request(method, path, **kwargs)
        body: dict[str, Any] = response.json()
        assert (response.status_code, body.get("code")) == (status, code), response.text
        assert response.headers["content-type"].startswith("application/problem+json")
        for member in ("title", "detail", "remediation", "request_id"):
            assert body.get(member), f"{member} is missing: {body}"
        return body

    # -- VMs ------------------------------------------------------------------------------------

    def create(self, **spec: Any) -> dict[str, Any]:
        body: dict[str, Any] = self.expect(201, "POST", "/vms", json=spec).json()
        return body

    def get(self, vm_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.expect(200, "GET", f"/vms/{vm_id}").json()
        return body

    def list(self, **query: str | int) -> list[dict[str, Any]]:
        body: dict[str, Any] = self.expect(200, "GET", "/vms", params=query).json()
        vms: list[dict[str, Any]] = body["vms"]
        return vms

    def pause(self, vm_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.expect(200, "POST", f"/vms/{vm_id}/pause").json()
        return body

    def resume(self, vm_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.expect(200, "POST", f"/vms/{vm_id}/resume").json()
        return body

    def delete(self, vm_id: str) -> None:
        self.expect(204, "DELETE", f"/vms/{vm_id}")

    def exec(self, vm_id: str, argv: Iterable[str], **more: Any) -> Exec:
        body = self.expect(
            200, "POST", f"/vms/{vm_id}/exec", json={"argv": list(argv), **more}
        ).json()
        return Exec(body["exit_code"], body["signal"], body["stdout"], body["stderr"], body)

    def wait_state(self, vm_id: str, wanted: str, seconds: float = 120) -> dict[str, Any]:
        """Asks until the VM is in a state; there is no event to wait for over HTTP yet."""
        wait_until(lambda: self.get(vm_id)["state"] == wanted, seconds, f"{vm_id} is not {wanted}")
        return self.get(vm_id)

    def wait_gone(self, vm_id: str, seconds: float = 60) -> dict[str, Any]:
        """Likewise until it has ended: the problem document, whose detail says why."""
        path = f"/vms/{vm_id}"
        wait_until(
            lambda: self.request("GET", path).status_code == 404, seconds, f"{vm_id} is there"
        )
        return self.problem(404, "vm_gone", "GET", path)


def raw(
    address: str | Path, request: bytes, seconds: float = 30
) -> tuple[int, dict[str, str], bytes]:
    """Bytes no well-behaved client would send; (status, headers, body) of the first answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(seconds)
        sock.connect(str(address))
        sock.sendall(request)
        response = http.client.HTTPResponse(sock)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()
