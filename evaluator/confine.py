"""The walls that a worker raises around itself before it loads a variant: rlimits, capabilities, Landlock, seccomp.

Plain system calls through ctypes, on x86-64 and aarch64; none of them can be taken down again by the process.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 21, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
EPERM, ENOSYS = 1, 38
MAX_FILE = 512 << 20


@dataclass(frozen=True)
class Spec:
    """What a worker is to raise; `compiler` leaves open what a GPU needs: fork, exec, a local socket."""

    landlock: bool
    seccomp: bool
    compiler: bool
    memory: int | None  # bytes of private memory, None where CUDA reserves more than it uses
    read: tuple[str, ...]
    write: tuple[str, ...]
    parent: int | None  # whose death ends this process, where no namespace sees to it


def enter(spec: Spec) -> None:
    """Raise the walls of `spec` around this process; call it while it has one thread."""
    if spec.parent is not None:
        die_with(spec.parent)
    limit_resources(spec.memory)
    if not LINUX:
        return
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities()
    if spec.landlock:
        landlock(spec.read, spec.write)
    if spec.seccomp:
        seccomp(compiler=spec.compiler)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone."""
    if LINUX:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def limit_resources(memory: int | None) -> None:
    """No core files, bounded files and descriptors, and bounded memory where its use can be told from its address space."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: MAX_FILE, resource.RLIMIT_NOFILE: 4096}
    if memory is not None:
        limits[resource.RLIMIT_DATA] = memory
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def drop_capabilities() -> None:
    """Give up every capability for good; a process of root keeps only what its user may do."""
    for capability in range(64):
        with contextlib.suppress(OSError):
            _prctl(PR_CAPBSET_DROP, capability)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    _libc().capset(header, ctypes.create_string_buffer(bytes(24)))


# --- Landlock -----------------------------------------------------------------------------------

_READ = 0b1101  # execute, read a file, list a folder
_ON_FILES = 0b1100000000000111  # what may be granted on what is no folder: execute, write, read, truncate, ioctl
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446


def landlock_version() -> int:
    """The kernel's Landlock interface, 0 where there is none."""
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, 1))) if LINUX else 0


def landlock(read: Iterable[str], write: Iterable[str]) -> None:
    """Deny every file but those beneath `read` and `write`, TCP, and signals to processes outside."""
    version = landlock_version()
    every = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    attributes = struct.pack("QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _checked(_libc().syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    for paths, access in ((read, _READ), (write, every)):
        for path in paths:
            _allow(rules, path, access & every)
    _checked(_libc().syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    if not os.path.isdir(path):
        access &= _ON_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, fd), 12)
    _checked(_libc().syscall(_ADD_RULE, rules, 1, rule, 0), f"landlock_add_rule {path}")
    os.close(fd)


# --- seccomp ------------------------------------------------------------------------------------

# name: (x86-64, aarch64), -1 where the machine has no such call
_DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442), "quotactl": (179, 60),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "mknod": (133, -1), "mknodat": (259, 33),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "personality": (135, 92),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "syslog": (103, 116), "acct": (163, 89),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "vhangup": (153, 58),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "socket": (41, 198),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}  # fmt: skip
_PROCESSES = {"fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281)}
_CLONE, _CLONE3, _TGKILL, _PRCTL, _MEMFD = (56, 220), (435, 435), (234, 131), (157, 167), (319, 279)
_CLONE_THREAD = 0x10000
_AF_UNIX = 1
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def has_seccomp() -> bool:
    """Whether this kernel takes a filter, and we have the numbers of its calls."""
    return LINUX and platform.machine() in _ARCHITECTURES and _libc().prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0


def seccomp(*, compiler: bool) -> None:
    """Answer EPERM to calls that reach other processes, the network or the kernel, and to fork and exec."""
    column, architecture = _ARCHITECTURES[platform.machine()]
    denied = [numbers[column] for numbers in _DENIED.values()]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if column == 0:  # the x32 numbers would be a second door to the same calls
        program += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _ERRNO | EPERM)]
    if not compiler:
        denied += [numbers[column] for numbers in (*_PROCESSES.values(), _MEMFD)]
        program += _only_if(_CLONE[column], _ANY_BIT, _CLONE_THREAD)
        program += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | ENOSYS)]
        # To outlive its parent, or to close what it uses to whoever watches it; what may fork could do so anyway.
        program += [(_EQUAL, 0, 5, _PRCTL[column]), (_LOAD, 0, 0, 16), (_EQUAL, 2, 0, PR_SET_PDEATHSIG), (_EQUAL, 1, 0, PR_SET_DUMPABLE)]
        program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | EPERM)]
    else:  # CUDA opens a local socket when it starts
        denied.remove(_DENIED["socket"][column])
        program += _only_if(_DENIED["socket"][column], _EQUAL, _AF_UNIX)
    program += _only_if(_TGKILL[column], _EQUAL, os.getpid())
    for number in denied:
        if number >= 0:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | EPERM)]
    _install([*program, (_RETURN, 0, 0, _ALLOW)])


def _only_if(number: int, test: int, value: int) -> list[tuple[int, int, int, int]]:
    """Allow one call where its first argument passes a test, and deny it otherwise."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, 16),
        (test, 0, 1, value),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | EPERM),
    ]


def _install(program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    _checked(_libc().prctl(PR_SET_SECCOMP, 2, filter_, 0, 0), "seccomp")


# --- the C library ------------------------------------------------------------------------------


def become_subreaper() -> None:
    """Have orphans of our children come to us, so that they can be found and ended."""
    if LINUX:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _prctl(option: int, value: int) -> None:
    longs = [ctypes.c_ulong(n) for n in (value, 0, 0, 0)]
    _checked(_libc().prctl(option, *longs), f"prctl {option}")


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
