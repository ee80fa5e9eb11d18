"""The real host: everything that `LinuxReader` reads, and the effects."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from nvlane.apply import keyring as keys
from nvlane.apply.linux_reader import LinuxReader
from nvlane.apply.operations.processes import start_time_of
from nvlane.apply.process import run, spawn
from nvlane.model.errors import HostError
from nvlane.model.host import Output

#: Seconds between two looks of `wait_until`; it doubles from the first to the second.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.1
#: sun_path of unix(7) holds 108 bytes with its final NUL.
_SOCKET_PATH_MAX: Final = 107


class LinuxHost(LinuxReader):
    """The running Linux host: implements `model.host.Host`. Errors are OSError as the kernel gives them."""

    def write_text(self, path: str, text: str) -> None:
        # One write(2), for a control file takes each write as a command of its own; and never O_CREAT.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)

    def create_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)

    def create_sparse(self, path: str, size: int, *, mode: int = 0o600) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def mkdir(self, path: str, *, mode: int = 0o700) -> None:
        Path(path).mkdir(mode=mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid)

    def rmdir(self, path: str) -> None:
        Path(path).rmdir()

    def unlink(self, path: str) -> None:
        Path(path).unlink()

    def link(self, source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError as error:
            # File systems without hard links (vfat, exfat). The name was free a moment ago; that must do there.
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP) or os.path.lexists(target):
                raise
            Path(source).rename(target)

    def symlink(self, node: str, path: str) -> None:
        Path(path).symlink_to(node)

    def converse(self, path: str, text: str) -> str:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            return os.read(descriptor, 4096).decode(errors="replace")
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)

    def mount(self, source: str, target: str, fstype: str, options: str) -> None:
        _checked(_libc().mount(source.encode(), target.encode(), fstype.encode(), 0, options.encode()), target)

    def umount(self, target: str) -> None:
        _checked(_libc().umount2(target.encode(), 0), target)

    def load_module(self, name: str) -> None:
        run(["modprobe", name])

    def unload_module(self, name: str) -> None:
        # delete_module(2) itself: `modprobe -r` would also take modules that were there before.
        _checked(_libc().delete_module(name.encode(), os.O_NONBLOCK), name)

    def claim_exclusively(self, block_device: str) -> bool:
        try:
            descriptor = os.open(block_device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        os.close(descriptor)
        return True

    def add_key(self, keyring: str, kind: str, description: str, payload: bytes) -> None:
        keys.add_key(keyring, kind, description, payload)

    def unlink_key(self, keyring: str, number: int) -> None:
        keys.unlink_key(keyring, number)

    def listen(self, path: str) -> int:
        if len(path.encode()) > _SOCKET_PATH_MAX:
            raise HostError(
                f"the socket path {path} is longer than the {_SOCKET_PATH_MAX} bytes that the kernel allows",
                remedy="take a shorter machine name, or a shorter NVLANE_RUNTIME_DIR",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The node gets the mode of the unbound socket (unix_bind_bsd in net/unix/af_unix.c): never open, not even
            # for a moment, and no umask to juggle.
            os.fchmod(listener.fileno(), 0o600)
            try:
                listener.bind(path)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            listener.listen(1)
            return listener.detach()

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        log: str,
        descriptors: Mapping[int, int],
        environment: Mapping[str, str],
        memlock: int | None = None,
    ) -> int:
        return spawn(argv, log=Path(log), fds=descriptors, memlock=memlock, env=environment)

    def signal(self, pid: int, start_time: int, number: int) -> bool:
        descriptor = self._process(pid, start_time)
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False  # it ended in between
        finally:
            os.close(descriptor)
        return True

    def wait_end(self, pid: int, start_time: int, *, deadline: float) -> bool:
        descriptor = self._process(pid, start_time)
        if descriptor is not None:
            try:
                # A pidfd becomes readable when its process ends (pidfd_open(2)).
                if not select.select([descriptor], [], [], deadline)[0]:
                    return False
            finally:
                os.close(descriptor)
        _reap(pid)
        return True

    def _process(self, pid: int, start_time: int) -> int | None:
        """A descriptor of exactly this process; None when it has ended. Looked at in this order: once the descriptor
        is open its number cannot be given again unnoticed."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if start_time_of(self, pid) == start_time:
            return descriptor
        os.close(descriptor)
        return None

    def command(self, argv: Sequence[str], *, timeout: float = 120.0) -> Output:
        done = run(argv, timeout=timeout)
        return Output(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def wait_until(self, condition: Callable[[], bool], *, deadline: float) -> bool:
        end = time.monotonic() + deadline
        pause = _FIRST_LOOK
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LAST_LOOK)
        return True


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)


def _reap(pid: int) -> None:
    """Take the status of a child of ours, so that no zombie stays while we run on."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # an earlier nvlane started it: init takes its status
