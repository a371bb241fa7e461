"""Makes a thread of a VMM call what its filter forbids, as code that took it over would: through
ptrace, which root may use on it from outside."""

import ctypes
import os
from pathlib import Path

PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_ATTACH, PTRACE_DETACH = 12, 13, 16, 17
WALL = 0x40000000  # waitpid for any thread
REGISTERS = (
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "orig_rax",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
)
NO_SYSCALL = (1 << 64) - 1
SYSCALL_SIZE = 2  # bytes of the instruction


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86_64."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request: int, thread: int, data: Registers | None = None) -> None:
    address = ctypes.cast(ctypes.byref(data), ctypes.c_void_p) if data is not None else None
    if _libc.ptrace(request, thread, None, address) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace({request}): {os.strerror(error)}")


def thread_named(pid: int, name: str) -> int:
    """A thread by its comm."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if (thread / "comm").read_text(encoding="utf-8").strip() == name:
            return int(thread.name)
    raise LookupError(f"process {pid} has no thread {name}")


def syscall(thread: int, number: int, *arguments: int) -> None:
    """The thread, which waits in some system call, makes this one when it goes on."""
    _ptrace(PTRACE_ATTACH, thread)
    os.waitpid(thread, WALL)
    registers = Registers()
    _ptrace(PTRACE_GETREGS, thread, registers)
    if registers.orig_rax == NO_SYSCALL:
        _ptrace(PTRACE_DETACH, thread)
        raise RuntimeError(f"thread {thread} is in no system call")
    registers.orig_rax = NO_SYSCALL  # the one it is in is not started again
    registers.rax = number
    registers.rip -= SYSCALL_SIZE
    for name, value in zip(("rdi", "rsi", "rdx"), arguments, strict=False):
        setattr(registers, name, value)
    _ptrace(PTRACE_SETREGS, thread, registers)
    _ptrace(PTRACE_DETACH, thread)
