"""Puts the process that runs a student's code behind walls, with what the system offers.

Everywhere: no core dumps, short files, no more private memory than allowed, as far as `setrlimit` goes. On
Linux, without any privilege: Landlock, so that it reads Python and its packages alone and writes to its
scratch folder alone, and a seccomp filter, so that it starts no process, signals none but itself, and opens
no connection. What is missing is told by `walls`, not passed over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
import sysconfig
from pathlib import Path

LONGEST_FILE = 2**26  # bytes
_NO_NEW_PRIVILEGES, _SECCOMP, _DEATH_SIGNAL, _SUBREAPER = 38, 22, 1, 36  # of prctl
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EPERM, _ENOSYS = 1, 38

# Numbers of system calls by machine: (refused, those whose first argument must be this process, the rest).
_REFUSED = {
    "x86_64": [
        57, 58, 59, 322,  # fork, vfork, execve, execveat
        101, 310, 311, 200, 129, 297, 424, 434, 438,  # ptrace, memory and signals of others
        41, 425, 426, 427, 321, 323,  # socket, io_uring, bpf, userfaultfd
        109, 112, 272, 308, 165, 166, 161, 155,  # setpgid, setsid, unshare, setns, mount, chroot
        29, 64, 68, 240, 319,  # memory and queues that outlive or escape the process
        76, 285,  # truncate, which an old Landlock lets pass; fallocate, which fills a disk at once
        90, 91, 268, 452, 92, 93, 94, 260, 188, 189, 190, 132, 235, 280,  # chmod, chown, xattr, times
        169, 246, 175, 313, 176, 164, 227, 170, 171, 167, 168, 160, 141, 142, 144, 203,  # the machine
    ],
    "aarch64": [
        221, 281, 117, 270, 271, 130, 138, 240, 424, 434, 438, 198, 425, 426, 427, 280, 282, 154, 157, 97,
        268, 40, 39, 51, 41, 194, 190, 186, 180, 279, 52, 53, 452, 55, 54, 5, 6, 7, 88, 142, 104, 105, 273,
        106, 170, 112, 161, 162, 224, 225, 164, 140, 118, 119, 122, 45, 47,
    ],
}  # fmt: skip
_OWN = {"x86_64": [62, 234], "aarch64": [129, 131]}  # kill, tgkill
_CLONE = {"x86_64": 56, "aarch64": 220}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_CLONE3, _OPENAT2, _CLONE_THREAD = 435, 437, 0x10000
# Opening to read and yet to cut short: (number, where its flags are). An old Landlock lets it pass.
_OPEN = {"x86_64": [(2, 24), (257, 32)], "aarch64": [(56, 32)]}
_ACCESS_AND_CUT, _CUT = 0o1003, 0o1000
# Whom a file tells of what happens to it: any process of this user, by any signal.
_TELLS = {
    "x86_64": [(72, (8, 10, 15)), (16, (0x8901, 0x8902))],
    "aarch64": [(25, (8, 10, 15)), (29, (0x8901, 0x8902))],
}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_NOT_MADE = 1 << 6 | 1 << 9 | 1 << 11  # devices and sockets, by Landlock's numbers
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def walls() -> list[str]:
    """What this system lacks, a sentence each; empty where everything is there."""
    lacks = []
    if _landlock_version() < 1:
        lacks.append("This system has no Landlock: submitted code can read and write this user's files.")
    if not _has_seccomp():
        lacks.append(
            "This system has no seccomp filter: submitted code can start processes, signal this user's and "
            "use the network."
        )
    return lacks


def enclose(scratch: Path, memory: int) -> None:
    """Encloses the calling process for good. Call it after the imports, and before the student's first line.

    Args:
        scratch: the one folder in which it may write.
        memory: bytes of private memory that it may ask for on top of what it has now.
    """
    import resource

    limits = {"CORE": 0, "FSIZE": LONGEST_FILE, "NOFILE": 256}
    if sys.platform == "linux":  # It counts private pages only, not the address space that a driver reserves.
        limits["DATA"] = _private_memory() + memory
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        library.prctl(_DEATH_SIGNAL, 9, 0, 0, 0)
        library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if platform.machine() in _CAPSET:  # What root may do beyond its files.
            library.syscall(_CAPSET[platform.machine()], struct.pack("=Ii", 0x20080522, 0), bytes(24))
        _seccomp(library)  # First: it asks the system what is there, in files that are then out of reach.
        _landlock(library, scratch)


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans, so that none of them gets away (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def resident(process: int) -> int:
    """The resident memory of a process in bytes; 0 once it has ended."""
    try:
        if sys.platform == "linux":
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        import psutil

        return int(psutil.Process(process).memory_info().rss)
    except Exception:  # It has ended meanwhile.
        return 0


def descendants(process: int) -> list[int]:
    """The processes that descend from one, as far as the system tells."""
    try:
        import psutil

        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    except Exception:  # It has ended, or psutil is not there.
        return []


def _private_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return int(ctypes.CDLL(None).syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def _has_seccomp() -> bool:
    if sys.platform != "linux" or platform.machine() not in _REFUSED:
        return False
    with contextlib.suppress(OSError):
        return "\nSeccomp:" in Path("/proc/self/status").read_text()
    return False


def _readable() -> set[Path]:
    """Python, its packages, labkit, and the system's libraries. Not the folders of a person."""
    import labkit

    paths = {Path(sys.prefix), Path(sys.base_prefix), *map(Path, sysconfig.get_paths().values())}
    paths |= {Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}
    paths |= {Path(name) for name in ("/usr", "/lib", "/lib64", "/sys/devices/system", "/dev/urandom")}
    paths |= {
        Path("/etc", name) for name in ("ld.so.cache", "localtime", "mime.types", "nsswitch.conf", "passwd")
    }
    paths |= {
        Path(name) for name in ("/dev/null", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat")
    }
    paths.add(Path(labkit.__file__).parent)
    return {path.resolve() for path in paths if path.exists()} - {Path("/")}


def _landlock(library: ctypes.CDLL, scratch: Path) -> None:
    version = _landlock_version()
    if version < 1:
        return
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    rules = struct.pack("=QQQ", everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = library.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return
    read_file, read = 1 << 2, 1 << 0 | 1 << 2 | 1 << 3  # and: execute, list a folder
    for path, right in [*((path, read) for path in _readable()), (scratch, everything & ~_NOT_MADE)]:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = right if path.is_dir() else right & (read_file | 1 << 1)
        if str(path) == "/dev/null":
            allowed |= 1 << 1  # write
        library.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", allowed, handle), 0)
        os.close(handle)
    library.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _seccomp(library: ctypes.CDLL) -> None:
    machine = platform.machine()
    if not _has_seccomp():
        return
    allow, refuse, absent = 0x7FFF0000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS
    code: list[tuple[int, int, int, int]] = []

    def load(offset: int) -> None:
        code.append((0x20, 0, 0, offset))

    def give(action: int) -> None:
        code.append((0x06, 0, 0, action))

    def unless_equal(value: int, skip: int) -> None:
        code.append((0x15, 0, skip, value))

    load(4)
    unless_equal(_ARCHITECTURE[machine], 1)
    code.append((0x05, 0, 0, 1))
    give(0x80000000)  # Calls of another machine type would pass the numbers below.
    load(0)
    if machine == "x86_64":
        code.append((0x35, 0, 1, 0x40000000))
        give(refuse)
    for number in _REFUSED[machine]:
        unless_equal(number, 1)
        give(refuse)
    unless_equal(_CLONE3, 1)
    give(absent)  # Its arguments lie in memory that a filter cannot see; the C library then calls clone.
    unless_equal(_OPENAT2, 1)
    give(absent)  # Likewise; the C library calls openat.
    for number, flags in _OPEN[machine]:
        unless_equal(number, 5)
        load(flags)
        code.append((0x54, 0, 0, _ACCESS_AND_CUT))
        unless_equal(_CUT, 1)
        give(refuse)
        give(allow)
    for number, commands in _TELLS[machine]:
        unless_equal(number, 2 * len(commands) + 2)
        load(24)
        for command in commands:
            unless_equal(command, 1)
            give(refuse)
        give(allow)
    unless_equal(_CLONE[machine], 4)
    load(16)
    code.append((0x45, 1, 0, _CLONE_THREAD))
    give(refuse)
    give(allow)
    unless_equal(_PRLIMIT[machine], 6)
    load(32)  # The new limit's address; reading the old one is fine.
    unless_equal(0, 3)
    load(36)
    unless_equal(0, 1)
    give(allow)
    give(refuse)
    for number in _OWN[machine]:
        unless_equal(number, 4)
        load(16)
        unless_equal(os.getpid(), 1)
        give(allow)
        give(refuse)
    give(allow)
    program = b"".join(struct.pack("=HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    library.prctl(_SECCOMP, 2, head, 0, 0)
