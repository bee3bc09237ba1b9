"""C source to a loaded library: compiled once, kept in a directory of the user's own."""

import ctypes
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

# The rules of IEEE 754 hold, so infinities, NaN and the order of sums are as they are written: only
# errno and the exception flags, which nobody looks at, are given up.
STRICT = ("-std=c11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
FLAGS = ("-O3", "-ffp-contract=fast", *STRICT)
# What not every compiler and machine takes, the best first. Vectors are as long as the machine's:
# by themselves compilers stop at half of that on some.
CHOICES = (
    ("-march=native", "-mprefer-vector-width=512", "-fopenmp"),
    ("-march=native", "-fopenmp"),
    ("-march=native", "-fopenmp-simd"),
    ("-fopenmp-simd",),
    (),
)


class NoCompilerError(RuntimeError):
    """There is no C compiler, or none that compiles; the message says which were tried."""


def library(source: str, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """The compiled source, from the cache where it is in there.

    The cache is $GRADTWIN_CACHE, or gradtwin in $XDG_CACHE_HOME or ~/.cache; where that cannot be
    written, or others could write to it, it is a directory that lasts as long as this process.
    Raises NoCompilerError.
    """
    compiler = find_compiler()
    trouble = ""
    for choice in CHOICES:
        command = (*compiler, *flags, *choice)
        machine = _machine(compiler, choice)
        if machine is None:
            continue
        key = "\0".join((*command, machine, source))
        target = cache_directory() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
        loaded = _load(target)
        if loaded is None:
            trouble = _compile(command, source, target)
            loaded = _load(target)
        if loaded is not None:
            return loaded
    said = next(iter(trouble.splitlines()), "it takes none of the options tried")
    raise NoCompilerError(f"{shlex.join(compiler)} does not compile here: {said}")


def find_compiler() -> tuple[str, ...]:
    """$CC, or the first of gcc, clang and cc on the PATH. Raises NoCompilerError."""
    chosen = shlex.split(os.environ.get("CC", ""))
    names = [chosen[0]] if chosen else ["gcc", "clang", "cc"]
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return (path, *chosen[1:])
    raise NoCompilerError(f"no C compiler is found ({', '.join(names)})")


def has_compiler() -> bool:
    """Whether there is one, whatever it can do."""
    try:
        find_compiler()
    except NoCompilerError:
        return False
    return True


@cache
def cache_directory() -> Path:
    """A directory that this user can write and nobody else: what is in there will be run."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    wanted = Path(os.environ.get("GRADTWIN_CACHE") or os.path.join(home, "gradtwin")).absolute()
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = wanted.stat()
        own = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if own and os.access(wanted, os.W_OK):
            return wanted
    except OSError:  # no home, or a full or read-only disk: the next directory will do
        pass
    return Path(_temporary().name)


@cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="gradtwin-", ignore_cleanup_errors=True)


@cache
def _machine(compiler: tuple[str, ...], choice: tuple[str, ...]) -> str | None:
    """The compiler's version and what it knows of this processor; None if it refuses the options.

    A home directory may be shared by different machines.
    """
    command = [*compiler, *choice, "-dM", "-E", "-x", "c", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # not there yet, or damaged: it will be compiled
        return None


def _compile(command: tuple[str, ...], source: str, target: Path) -> str:
    """What the compiler complained of; the library appears under its name only when complete."""
    try:
        handle, beside = tempfile.mkstemp(prefix=".", suffix=".so", dir=target.parent)
    except OSError as error:  # removed meanwhile, or full
        raise NoCompilerError(f"{target.parent} cannot be written: {error.strerror}") from None
    os.close(handle)
    try:
        full = [*command, "-x", "c", "-", "-o", beside, "-lm"]
        done = subprocess.run(full, input=source, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.replace(beside, target)
        return done.stderr
    finally:
        Path(beside).unlink(missing_ok=True)
