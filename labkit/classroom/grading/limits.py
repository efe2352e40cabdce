"""Puts the process that runs a student's code behind walls, with what the system offers.

Everywhere: no core dumps, short files, no more private memory than allowed, as far as `setrlimit` goes. On
Linux, without any privilege: Landlock, so that it reads Python and its packages alone and writes to its
scratch folder alone, and a seccomp filter, so that it starts no process, signals none but itself, and opens
no connection. The packages `landlock` and `pyseccomp` (over the system's libseccomp) speak to the kernel;
here stands the policy alone. What is missing is told by `walls`, not passed over.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

LONGEST_FILE = 2**26  # bytes
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl
_CLONE_THREAD = 0x10000
_OWNERS = (0x8901, 0x8902)  # FIOSETOWN and SIOCSPGRP, of ioctl: whom a socket signals
_OWNER_EX = 15  # F_SETOWN_EX, of fcntl, which Python names since 3.13

# System calls that no exercise needs. Each architecture has those it knows; libseccomp has the numbers.
_REFUSED = """
fork vfork execve execveat
ptrace process_vm_readv process_vm_writev tkill rt_sigqueueinfo rt_tgsigqueueinfo
pidfd_send_signal pidfd_open pidfd_getfd process_madvise kcmp
socket io_uring_setup io_uring_enter io_uring_register bpf userfaultfd perf_event_open
setpgid setsid unshare setns mount umount2 chroot pivot_root open_by_handle_at
shmget semget msgget mq_open memfd_create add_key request_key keyctl
truncate truncate64 fallocate
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat chown32 fchown32 lchown32
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr utime utimes futimesat utimensat
reboot kexec_load init_module finit_module delete_module settimeofday clock_settime
sethostname setdomainname swapon swapoff setrlimit setpriority
sched_setparam sched_setscheduler sched_setattr sched_setaffinity
""".split()  # noqa: SIM905
# Their arguments lie in memory that a filter cannot see; told that they are absent, the C library calls
# clone and openat instead.
_ABSENT = ("clone3", "openat2")


def walls() -> list[str]:
    """What this system lacks, a sentence each; empty where everything is there."""
    lacks = []
    if _landlock() is None:
        lacks.append("This system has no Landlock: submitted code can read and write this user's files.")
    if _seccomp() is None:
        lacks.append(
            "This system has no seccomp filter: submitted code can start processes, signal this user's and "
            "use the network."
        )
    missing = [name for name, found in (("landlock", _landlock), ("pyseccomp", _seccomp)) if found() is None]
    if missing and sys.platform == "linux":
        lacks.append(f"They need Linux 5.13, libseccomp, and: pip install {' '.join(missing)}")
    return lacks


def enclose(scratch: str | Path, memory: int) -> None:
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
    if sys.platform != "linux":
        return
    landlock, seccomp = _landlock(), _seccomp()  # Both before the first of them stands.
    library = ctypes.CDLL(None)
    library.prctl(_DEATH_SIGNAL, 9, 0, 0, 0)
    library.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))  # What root may do beyond its files.
    if landlock:
        _wall_files(landlock, scratch)
    if seccomp:
        build_filter(seccomp).load()


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans, so that none of them gets away (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def resident(process: int) -> int:
    """The resident memory of a process in bytes; 0 once it has ended."""
    import psutil

    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return 0


def descendants(process: int) -> list[int]:
    """The processes that descend from one; none once it has ended."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    except psutil.Error:
        return []


def _private_memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().data)


@cache
def _landlock() -> Any:
    """The package, where the kernel has Landlock, too."""
    try:
        import landlock
        from landlock.plumbing import landlock_abi_version

        return landlock if landlock_abi_version() > 0 else None
    except (ImportError, OSError):
        return None


@cache
def _seccomp() -> Any:
    """The package, where it finds libseccomp, and the kernel takes filters."""
    try:
        import pyseccomp

        return pyseccomp if pyseccomp.get_api() > 0 else None
    except (ImportError, OSError, RuntimeError, NotImplementedError):
        return None


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


def _wall_files(landlock: Any, scratch: str | Path) -> None:
    from landlock.plumbing import FSAccess

    ctypes.set_errno(0)  # The package takes an error that was there before for its own.
    rules = landlock.Ruleset()
    read = FSAccess.READ_FILE | FSAccess.READ_DIR | FSAccess.EXECUTE
    for path in _readable():
        rules.allow(path, rules=read if path.is_dir() else FSAccess.READ_FILE)
    rules.allow("/dev/null", rules=FSAccess.READ_FILE | FSAccess.WRITE_FILE)
    rules.allow(
        scratch, rules=FSAccess.all() & ~(FSAccess.MAKE_CHAR | FSAccess.MAKE_BLOCK | FSAccess.MAKE_SOCK)
    )
    rules.apply()
    os.close(rules._fd)


def build_filter(seccomp: Any, *machines: int) -> Any:
    """The filter of system calls for the calling process.

    Args:
        seccomp: the package `pyseccomp`.
        machines: of `seccomp.Arch`, besides this machine's.

    Returns:
        A `SyscallFilter`, to be loaded. What it does not name is allowed.
    """
    import fcntl

    made = seccomp.SyscallFilter(seccomp.ALLOW)
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)  # Of another machine: other numbers.
    for machine in machines:
        made.add_arch(machine)

    def refuse(name: str, *where: Any, error: int = errno.EPERM) -> None:
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1:  # Newer than this libseccomp.
            made.add_rule(seccomp.ERRNO(error), name, *(seccomp.Arg(*part) for part in where))

    for name in _REFUSED:
        refuse(name)
    for name in _ABSENT:
        refuse(name, error=errno.ENOSYS)
    refuse("clone", (0, seccomp.MASKED_EQ, _CLONE_THREAD, 0))
    refuse("prlimit64", (2, seccomp.NE, 0))  # Reading a limit is fine.
    for name in ("kill", "tgkill"):
        refuse(name, (0, seccomp.NE, os.getpid()))
    # Opening to read and yet to cut short: an old Landlock lets it pass.
    for name, place in (("open", 1), ("openat", 2)):
        refuse(name, (place, seccomp.MASKED_EQ, os.O_ACCMODE | os.O_TRUNC, os.O_TRUNC))
    # Whom a file tells of what happens to it: any process of this user, by any signal.
    for command in (fcntl.F_SETOWN, fcntl.F_SETSIG, _OWNER_EX):
        refuse("fcntl", (1, seccomp.EQ, command))
    for command in _OWNERS:
        refuse("ioctl", (1, seccomp.EQ, command))
    return made
