"""The service's refusals and failures: a class for each thing that a program may do about them, by
the problem document's `code`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from .errors import MotteError, one_line
from .models import Certificate, Outputs
from .parse import parse


@dataclass(frozen=True)
class Problem:
    """The service's own words (RFC 9457)."""

    code: str
    status: int
    title: str
    detail: str
    remediation: str
    request_id: str
    context: Mapping[str, object] = field(default_factory=dict)
    retry_after_s: float | None = None


def _codes(words: str) -> frozenset[str]:
    return frozenset(words.split())


class ApiError(MotteError):
    codes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem
        self.code = problem.code
        self.remediation = problem.remediation
        self.request_id = problem.request_id

    def __str__(self) -> str:
        told = self.problem
        detail = told.detail.rstrip(".") or told.title
        return one_line(f"{told.code}: {detail}. {told.remediation} (request {told.request_id})")


class InvalidRequest(ApiError):
    codes = _codes(
        """invalid_json unknown_field wrong_type out_of_range missing_field invalid_value invalid_id
        networking_refused body_too_large unsupported_media_type bad_request uri_too_long
        invalid_query route_not_found method_not_allowed idempotency_key_reused
        digest_mismatch range_not_satisfiable"""
    )


class NotAllowed(ApiError):
    codes = _codes("unauthorized forbidden seccomp_level_refused")


class NotFound(ApiError):
    codes = _codes(
        "vm_not_found snapshot_not_found image_not_found exec_not_found file_not_found not_found"
    )


class VmGone(NotFound):
    codes = _codes("vm_gone")

    @property
    def certificate(self) -> Certificate | None:
        """None where the service has forgotten it."""
        context = self.problem.context
        return parse(Certificate, context, "the certificate") if context else None


class CommandLost(NotFound):
    codes = _codes("exec_lost")


class Conflict(ApiError):
    codes = _codes(
        """vm_ambiguous vm_not_running vm_paused
        snapshot_in_use snapshot_in_progress snapshot_mismatch id_taken
        exec_ended exec_stdin_conflict exec_no_terminal
        cancelled idempotency_key_in_use idempotency_answer_lost"""
    )


class Unavailable(ApiError):
    codes = _codes(
        """no_memory capacity_exhausted quota_exceeded rate_limited busy shutting_down cordoned
        no_hypervisor store_busy firewall_lock_timeout firewall_out_of_sync root_half_lost"""
    )


class GuestError(ApiError):
    codes = _codes("""boot_timeout guest_protocol guest_closed guest_unresponsive guest_refused
        guest_full archive_invalid""")


class CommandTimeout(GuestError):
    codes = _codes("exec_timeout")

    @property
    def outputs(self) -> Outputs:
        return parse(Outputs, self.problem.context, "the command's outputs")


class HostError(ApiError):
    codes = _codes(
        """internal system_call_failed bad_configuration image_changed snapshot_damaged disk_full
        hypervisor_failed hypervisor_timeout launch_failed vmm_exited guard_failed cgroup_failed
        firewall_no_privilege firewall_no_table firewall_commit_refused store_failed store_full
        store_newer root_half_refused"""
    )


KINDS: tuple[type[ApiError], ...] = (
    InvalidRequest, NotAllowed, NotFound, VmGone, CommandLost, Conflict, Unavailable, GuestError,
    CommandTimeout, HostError,
)  # fmt: skip
_BY_CODE = {code: kind for kind in KINDS for code in kind.codes}
_BY_STATUS: dict[int, type[ApiError]] = {
    401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 410: NotFound,
    429: Unavailable, 503: Unavailable,
}  # fmt: skip


def error_of(problem: Problem) -> ApiError:
    """A code that this client does not know yet is judged by its status."""
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status)
    return (kind or (InvalidRequest if problem.status < 500 else HostError))(problem)
