"""The seal of a process that runs a model's code: from then on it can compute, and answer over a socket that it holds.

Two walls, each enough by itself: Landlock, with no path, port or outer process allowed (Linux 5.13 or newer), and a
seccomp filter that lists what is allowed and refuses the rest: no file, no socket, no child process, no signal to
others, no executable memory. Besides: no capabilities, no new privileges, limits on time and memory, and the kernel
ends the process with its parent. For x86-64; it imports nothing of the package, so that a child can seal itself before
anything else runs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

ARCHITECTURES = {"x86_64": 0xC000003E}  # AUDIT_ARCH_*, and the numbers below are those of x86-64
# Calls that only compute, wait, or concern the process itself.
ALLOWED = {
    "read": 0, "write": 1, "close": 3, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60,
    "gettimeofday": 96, "getrusage": 98, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
    "getppid": 110, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "set_robust_list": 273, "get_robust_list": 274, "getrandom": 318, "rseq": 334,
}  # fmt: skip
MMAP, MPROTECT, CLONE, TGKILL, PRLIMIT64, CLONE3 = 9, 10, 56, 234, 302, 435
_X32 = 0x40000000  # calls of another numbering
_PROT_EXEC, _CLONE_THREAD = 4, 0x10000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF, linux/bpf_common.h
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_EACCES, _ENOSYS = 13, 38
_CALL, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


class SealError(Exception):
    """This process cannot be sealed. The text says what is missing."""


def seal_process(seconds: float, memory: int) -> None:
    """Seal this process for good. Raises SealError, and then nothing foreign may run in it.

    seconds: of CPU time. memory: bytes of address space in all.
    """
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        raise SealError(f"Linux on x86-64 is needed (this is {sys.platform} on {platform.machine()})")
    limits = {
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 8,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for which, most in limits.items():
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, "the parent's end", 1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    _drop_capabilities(libc)
    _prctl(libc, "no_new_privs", 38, 1)
    _prctl(libc, "dumpable", 4, 0)
    _landlock(libc)
    _seccomp(libc)


def _prctl(libc: ctypes.CDLL, what: str, *arguments: int) -> None:
    padded = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:5]]
    if libc.prctl(*padded):
        raise SealError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    for number in range(64):  # without CAP_SETPCAP this is refused, and then there are none to regain
        libc.prctl(24, ctypes.c_ulong(number), 0, 0, 0)  # PR_CAPBSET_DROP
    libc.prctl(47, ctypes.c_ulong(4), 0, 0, 0)  # PR_CAP_AMBIENT, all of them
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))  # version 3, this process
    nothing = ctypes.create_string_buffer(struct.pack("6I", *[0] * 6))
    if libc.syscall(126, header, nothing):  # capset
        raise SealError(f"capabilities: {os.strerror(ctypes.get_errno())}")


def _landlock(libc: ctypes.CDLL) -> None:
    """Deny every path, TCP port, abstract socket and outer process, as far as this kernel's Landlock reaches."""
    version = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        raise SealError(f"Landlock: {os.strerror(ctypes.get_errno())} (Linux 5.13 or newer with Landlock is needed)")
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    handled = [files, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]
    attributes = ctypes.create_string_buffer(struct.pack(f"{len(handled)}Q", *handled))
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(8 * len(handled)), ctypes.c_uint32(0))
    if ruleset < 0 or libc.syscall(446, ctypes.c_int(ruleset), ctypes.c_uint32(0)):
        raise SealError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> None:
    program = b"".join(struct.pack("HBBI", *each) for each in _filter(os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(22, ctypes.c_ulong(2), ctypes.create_string_buffer(pointer, len(pointer)), 0, 0):  # PR_SET_SECCOMP
        raise SealError(f"seccomp: {os.strerror(ctypes.get_errno())}")


Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


def _filter(pid: int) -> list[Instruction]:
    """The program: other architectures are killed, calls are allowed by number or by their arguments, others fail."""
    refuse, allow = (_RETURN, 0, 0, _ERRNO | _EACCES), (_RETURN, 0, 0, _ALLOW)

    def load(offset: int) -> Instruction:
        return _LOAD, 0, 0, offset

    def argument(number: int, high: bool = False) -> Instruction:
        return load(_ARGUMENTS + 8 * number + 4 * high)

    def only(call: int, *then: Instruction) -> list[Instruction]:
        """Instructions for one call; each such list ends in a verdict."""
        return [(_EQUAL, 0, len(then), call), *then]

    executable = [argument(2), (_ANY_BIT, 0, 1, _PROT_EXEC), refuse, allow]
    return [
        load(_ARCHITECTURE),
        (_EQUAL, 1, 0, ARCHITECTURES["x86_64"]),
        (_RETURN, 0, 0, _KILL),
        load(_CALL),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        *[each for call in ALLOWED.values() for each in only(call, allow)],
        *only(MMAP, *executable),
        *only(MPROTECT, *executable),
        *only(CLONE, argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), allow, refuse),
        *only(CLONE3, (_RETURN, 0, 0, _ERRNO | _ENOSYS)),  # then the C library uses clone, whose flags can be read
        *only(TGKILL, argument(0), (_EQUAL, 0, 1, pid), allow, refuse),
        *only(
            PRLIMIT64,  # reading limits of this process
            argument(0),
            (_EQUAL, 0, 5, 0),
            argument(2),
            (_EQUAL, 0, 3, 0),
            argument(2, high=True),
            (_EQUAL, 0, 1, 0),
            allow,
            refuse,
        ),
        refuse,
    ]
