"""A host in memory that implements `model.host.Host`, with the kernel's behaviour where nvlane relies on it."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nvlane.apply.memory.fabrics import MemoryFabrics
from nvlane.apply.memory.kernel import Hugepages, MemoryProcess, Modules, Mounts, Pool, Processes
from nvlane.apply.memory.keyrings import Keyrings
from nvlane.apply.memory.pci import Bus, MemoryFunction
from nvlane.apply.memory.tree import Tree
from nvlane.model.errors import CommandFailed, HostError
from nvlane.model.host import FileStat, Output
from nvlane.model.pci import PciAddress

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
#: Every look of `wait_until` is one; nothing in this host takes time, so a few are plenty.
_LOOKS: Final = 3


class MemoryHost:
    """`before_effect` is called with the name of each effect just before it: a test raises there to cut a run short."""

    def __init__(
        self,
        *,
        functions: Sequence[MemoryFunction] = (),
        pools: Mapping[tuple[int, int], Pool] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.tree = Tree()
        self.bus = Bus(self.tree)
        self.modules = Modules(self.tree, self.bus)
        self.hugepages = Hugepages(self.tree, dict(pools or {}))
        self.mounts = Mounts(self.tree)
        self.fabrics = MemoryFabrics(self.tree, self.modules, self.mounts)
        self.keyrings = Keyrings(self.tree)
        self.processes = Processes(self.tree)
        self.before_effect: Callable[[str], None] = lambda _: None
        self._environment = dict(environment or {})
        self._descriptors: dict[int, str] = {}
        self._boots = 0
        for path in ("/run", "/tmp", "/var/lib", "/dev"):
            self.tree.add_directory(path)
        self.tree.add_text("/proc/sys/kernel/hostname", "memory\n")
        self.tree.add_text("/proc/buddyinfo", "Node 0, zone   Normal 0 0 0 0 0 0 0 0 0 0 0\n")
        self.tree.add_text(_BOOT_ID, "boot-0\n")
        self.bus.add_driver("nvme")
        for function in functions:
            self.bus.add(function)

    # What happens to a host without nvlane.

    def reboot(self) -> None:
        """Everything that does not survive a boot is gone, /run among it."""
        self._boots += 1
        self.processes.reboot()
        self.mounts.reboot()
        self.bus.open_nodes.clear()
        self.modules.reboot()
        self.fabrics.reboot()
        self.keyrings.reboot()
        self.bus.reboot()
        self.hugepages.reboot()
        self.tree.remove("/run")
        self.tree.add_directory("/run")
        self.tree.add_text(_BOOT_ID, f"boot-{self._boots}\n")

    def pull(self, address: PciAddress) -> None:
        self.bus.remove(address)

    def hold_open(self, path: str, argv: tuple[str, ...] = ("/usr/bin/other",)) -> MemoryProcess:
        """Somebody else's process opens a node."""
        process = self.processes.start(argv, {})
        self.tree.add_link(f"/proc/{process.pid}/fd/3", path)
        self.bus.open_nodes.add(path)
        return process

    def state(self) -> dict[str, str]:
        """All that a person could see of this host, for comparing. The kernel gives controllers their names anew with
        every binding, so drives stand here by their serials."""
        names = {f.controller: f"nvme({f.serial})" for f in self.bus.functions.values() if f.controller}

        def known(text: str) -> str:
            return re.sub(r"nvme\d+", lambda match: names.get(match[0], match[0]), text)

        return {known(path): known(text) for path, text in self.tree.dump().items() if path != _BOOT_ID}

    # HostReader

    def read_text(self, path: str) -> str:
        return self.read_bytes(path).decode(errors="replace")

    def read_bytes(self, path: str, *, offset: int = 0, length: int = -1) -> bytes:
        node = self.tree.find(path)
        if node.kind == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        data = node.read().encode() if node.read is not None else node.data
        return data[offset:] if length < 0 else data[offset : offset + length]

    def exists(self, path: str) -> bool:
        return self.tree.exists(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(self.tree.directory(path).children)

    def readlink(self, path: str) -> str:
        node = self.tree.find(path, follow=False)
        if node.kind != "link":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return node.target

    def realpath(self, path: str) -> str:
        return self.tree.realpath(path)

    def stat(self, path: str) -> FileStat:
        node = self.tree.find(path)
        return FileStat(
            kind=node.kind,
            size=node.size,
            mode=node.mode,
            uid=node.uid,
            inode=node.inode,
            mtime_ns=node.mtime_ns,
            device=node.device,
            allocated=len(node.data),
            gid=node.gid,
        )

    def query(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Output:  # noqa: ARG002
        match list(argv):
            case ["modprobe", "--show-depends", name]:
                try:
                    order = self.modules.order(name.replace("-", "_"))
                except KeyError:
                    return Output(status=1, stdout="", stderr=f"modprobe: FATAL: Module {name} not found\n")
                return Output(status=0, stdout="".join(f"insmod /lib/modules/{m}.ko.xz \n" for m in order), stderr="")
            case ["dmesg", *_]:
                return Output(status=0, stdout="", stderr="")
        raise HostError(f"no such program: {argv[0]}")

    def environment(self, name: str) -> str | None:
        return self._environment.get(name)

    def effective_uid(self) -> int:
        return 0

    def free_space(self, path: str) -> int:  # noqa: ARG002
        return 1 << 40

    def writable(self, path: str) -> bool:
        return self.tree.exists(path)

    # Host

    def write_text(self, path: str, text: str) -> None:
        self.before_effect(f"write {path}")
        node = self.tree.find(path)
        if node.read is not None or node.write is not None:
            if node.write is None:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            node.write(text)
            return
        node.data = text.encode() + node.data[len(text.encode()) :]
        node.size = len(node.data)
        self.tree.touch(node)

    def create_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        self.before_effect(f"create {path}")
        self.tree.add(path, "file", data=data, mode=mode)

    def create_sparse(self, path: str, size: int, *, mode: int = 0o600) -> None:
        self.before_effect(f"create {path}")
        self.tree.add(path, "file", size=size, mode=mode)

    def mkdir(self, path: str, *, mode: int = 0o700) -> None:
        self.before_effect(f"mkdir {path}")
        self.tree.add(path, "directory", mode=mode)
        self.fabrics.made(path)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self.before_effect(f"chown {path}")
        node = self.tree.find(path)
        node.uid, node.gid = uid, gid

    def rmdir(self, path: str) -> None:
        self.before_effect(f"rmdir {path}")
        if self.fabrics.owns(path):
            self.fabrics.rmdir(path)
            return
        if self.mounts.is_mountpoint(path):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        self.tree.rmdir(path)

    def unlink(self, path: str) -> None:
        self.before_effect(f"unlink {path}")
        self.tree.unlink(path)

    def link(self, source: str, target: str) -> None:
        self.before_effect(f"link {target}")
        self.tree.link(source, target)

    def mount(self, source: str, target: str, fstype: str, options: str) -> None:
        self.before_effect(f"mount {target}")
        self.mounts.mount(source, target, fstype, options)
        self.fabrics.settle()

    def symlink(self, node: str, path: str) -> None:
        self.before_effect(f"symlink {path}")
        self.tree.add(path, "link").target = node

    def converse(self, path: str, text: str) -> str:
        self.before_effect(f"write {path}")
        self.tree.find(path)
        return self.fabrics.connect(text)

    def find_key(self, keyring: str, kind: str, description: str) -> int:
        return self.keyrings.find(keyring, kind, description)

    def add_key(self, keyring: str, kind: str, description: str, payload: bytes) -> None:
        self.before_effect(f"add a key to {keyring}")
        self.keyrings.add(keyring, kind, description, payload)

    def unlink_key(self, keyring: str, number: int) -> None:
        self.before_effect(f"take a key out of {keyring}")
        self.keyrings.unlink(keyring, number)

    def umount(self, target: str) -> None:
        self.before_effect(f"umount {target}")
        self.mounts.umount(target)
        self.fabrics.settle()

    def load_module(self, name: str) -> None:
        self.before_effect(f"load {name}")
        try:
            self.modules.load(name.replace("-", "_"))
        except KeyError:
            raise CommandFailed(f"modprobe {name}", "exit status 1", f"Module {name} not found") from None
        self.fabrics.settle()

    def unload_module(self, name: str) -> None:
        self.before_effect(f"unload {name}")
        self.modules.unload(name)
        self.fabrics.settle()

    def claim_exclusively(self, block_device: str) -> bool:
        self.tree.find(block_device)
        return block_device not in self.bus.claimed

    def listen(self, path: str) -> int:
        self.before_effect(f"listen {path}")
        if self.tree.exists(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
        self.tree.add(path, "socket")
        descriptor = max(self._descriptors, default=1000) + 1
        self._descriptors[descriptor] = path
        return descriptor

    def close(self, descriptor: int) -> None:
        del self._descriptors[descriptor]

    def spawn(
        self,
        argv: Sequence[str],
        *,
        log: str,
        descriptors: Mapping[int, int],
        environment: Mapping[str, str],
        memlock: int | None = None,  # noqa: ARG002
    ) -> int:
        self.before_effect(f"spawn {argv[0]}")
        process = self.processes.start(tuple(argv), dict(environment))
        process.sockets = [self._descriptors[ours] for ours in descriptors.values()]
        if not self.tree.exists(log):
            self.tree.add(log, "file", data=b"started\n")
        return process.pid

    def signal(self, pid: int, start_time: int, number: int) -> bool:
        self.before_effect(f"signal {number}")
        process = self._process(pid, start_time)
        if process is None:
            return False
        if number not in process.ignores or number == signal.SIGKILL:
            self.processes.end(pid)
        return True

    def wait_end(self, pid: int, start_time: int, *, deadline: float) -> bool:  # noqa: ARG002
        return self._process(pid, start_time) is None

    def _process(self, pid: int, start_time: int) -> MemoryProcess | None:
        process = self.processes.running.get(pid)
        return process if process is not None and process.start_time == start_time else None

    def command(self, argv: Sequence[str], *, timeout: float = 120.0) -> Output:  # noqa: ARG002
        self.before_effect(f"run {argv[0]}")
        match list(argv):
            case ["qemu-img", "create", "-q", "-f", form, path, size] if re.fullmatch(r"\d+", size):
                self.tree.add(path, "file", data=f"{form} of {size}".encode())
                return Output(status=0, stdout="", stderr="")
        raise HostError(f"no such program: {argv[0]}")

    def wait_until(self, condition: Callable[[], bool], *, deadline: float) -> bool:  # noqa: ARG002
        return any(condition() for _ in range(_LOOKS))
