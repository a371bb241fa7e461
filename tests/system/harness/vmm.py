"""A VMM spoken to behind the service's back: whether its guest is paused, by its own word."""

import json
import socket
from typing import Any

import httpx

from .backend import Backend

SECONDS = 30.0


def is_paused(backend: Backend, pid: int) -> bool:
    if backend.emulated:
        return not _qmp(pid, "query-status")["running"]
    with _firecracker(pid) as api:
        return bool(api.get("/").json()["state"] == "Paused")


def set_paused(backend: Backend, pid: int, paused: bool) -> None:
    if backend.emulated:
        _qmp(pid, "stop" if paused else "cont")
        return
    with _firecracker(pid) as api:
        answer = api.patch("/vm", json={"state": "Paused" if paused else "Resumed"})
        assert answer.status_code == 204, answer.text


def _firecracker(pid: int) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=f"/proc/{pid}/root/api.sock")
    return httpx.Client(transport=transport, base_url="http://vmm", timeout=SECONDS)


def _qmp(pid: int, command: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(f"/proc/{pid}/root/vm/api.sock")
        with sock.makefile("rw", encoding="utf-8") as monitor:
            json.loads(monitor.readline())  # it greets
            for name in ("qmp_capabilities", command):
                monitor.write(json.dumps({"execute": name}) + "\n")
                monitor.flush()
                answer = json.loads(monitor.readline())
                while "event" in answer:
                    answer = json.loads(monitor.readline())
            returned: dict[str, Any] = answer["return"]
            return returned
