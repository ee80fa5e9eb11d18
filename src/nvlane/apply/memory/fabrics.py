"""NVMe over Fabrics of the in-memory host: nvmet's part of configfs, and connections through nvme-loop."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from nvlane.apply.memory.kernel import Modules, Mounts
from nvlane.apply.memory.tree import Tree
from nvlane.model.size import MIB

_CONFIGFS: Final = "/sys/kernel/config"
_NVMET: Final = f"{_CONFIGFS}/nvmet"
_DEVICE: Final = "/dev/nvme-fabrics"
_GROUPS: Final = ("subsystems", "hosts", "ports")
#: What the kernel makes below a node (drivers/nvme/target/configfs.c): groups, and attributes with their values.
_NODES: Final = (
    (r"subsystems/[^/]+", ("namespaces", "allowed_hosts"), {"attr_allow_any_host": "0", "attr_serial": "0123"}),
    (r"subsystems/[^/]+/namespaces/\d+", (), {"device_path": "", "device_uuid": "", "enable": "0"}),
    (r"hosts/[^/]+", (), {"dhchap_key": "", "dhchap_ctrl_key": ""}),
    (r"ports/\d+", ("subsystems",), dict.fromkeys(("addr_trtype", "addr_adrfam", "addr_traddr"), "")),
)
#: Controllers that come over a fabric are numbered from here, apart from those on PCI.
_FIRST: Final = 40
_SIZE: Final = 64 * MIB


class MemoryFabrics:
    """Nodes are there while configfs is mounted and nvmet is loaded."""

    def __init__(self, tree: Tree, modules: Modules, mounts: Mounts) -> None:
        self._tree, self._modules, self._mounts = tree, modules, mounts
        self._controllers: dict[str, str] = {}
        tree.add_directory(_CONFIGFS)
        tree.add_directory("/sys/class/nvme")

    def settle(self) -> None:
        """After a module or mount came or went."""
        shown = "nvmet" in self._modules.loaded and self._mounts.is_mountpoint(_CONFIGFS)
        if shown and not self._tree.exists(_NVMET):
            for group in _GROUPS:
                self._tree.add_directory(f"{_NVMET}/{group}")
        elif not shown:
            self._tree.remove(_NVMET)
        if "nvme_fabrics" in self._modules.loaded and not self._tree.exists(_DEVICE):
            self._tree.add(_DEVICE, "char").data = b"instance=-1,cntlid=-1,transport=%s,nqn=%s,dhchap_secret=%s\n"
        elif "nvme_fabrics" not in self._modules.loaded:
            self._tree.remove(_DEVICE)

    def reboot(self) -> None:
        for name in list(self._controllers):
            self._delete(name)
        self.settle()

    def made(self, path: str) -> None:
        """What the kernel puts into a node that was just made."""
        below = path.removeprefix(f"{_NVMET}/")
        for form, groups, attributes in _NODES:
            if below != path and re.fullmatch(form, below):
                for group in groups:
                    self._tree.add_directory(f"{path}/{group}")
                for name, value in attributes.items():
                    self._attribute(f"{path}/{name}", value)
                self._modules.pinned.add("nvmet")  # each node holds its module

    def _attribute(self, path: str, value: str) -> None:
        state = [value]
        self._tree.add_control(path, read=lambda: f"{state[0]}\n", write=lambda text: state.__setitem__(0, text))

    def owns(self, path: str) -> bool:
        return path.startswith(f"{_NVMET}/")

    def rmdir(self, path: str) -> None:
        """A node goes with its attributes and groups, unless somebody made a node in it or linked to it."""
        node = self._tree.directory(path)
        groups = [child for child in node.children.values() if child.kind == "directory"]
        if any(group.children for group in groups) or f"-> {path}" in self._tree.dump().values():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        self._tree.remove(path)
        if not any(self._tree.directory(f"{_NVMET}/{group}").children for group in _GROUPS):
            self._modules.pinned.discard("nvmet")

    def connect(self, text: str) -> str:
        """One command to /dev/nvme-fabrics. Only nvme-loop leads anywhere here."""
        options = dict(part.partition("=")[::2] for part in text.split(","))
        nqn = options["nqn"]
        ports = self._tree.directory(f"{_NVMET}/ports").children if self._tree.exists(_NVMET) else {}
        offered = [port for port in ports if self._tree.exists(f"{_NVMET}/ports/{port}/subsystems/{nqn}")]
        if options["transport"] != "loop" or "nvme_loop" not in self._modules.loaded or not offered:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED), _DEVICE)
        number = next(n for n in range(_FIRST, _FIRST + 100) if f"nvme{n}" not in self._controllers)
        name, tree = f"nvme{number}", self._tree
        base = f"/sys/class/nvme/{name}"
        self._controllers[name] = nqn
        values = {"transport": "loop", "address": "", "subsysnqn": nqn, "state": "live", "hostnqn": options["hostnqn"]}
        for attribute, value in values.items():
            tree.add_text(f"{base}/{attribute}", f"{value}\n")
        tree.add_control(f"{base}/delete_controller", write=lambda _: self._delete(name))
        for nsid in tree.directory(f"{_NVMET}/subsystems/{nqn}/namespaces").children:
            node, minor = f"{name}n{nsid}", number * 256 + int(nsid)
            block = f"{base}/{node}"
            tree.add_text(f"{block}/size", f"{_SIZE // 512}\n")
            tree.add_text(f"{block}/nsid", f"{nsid}\n")
            tree.add_text(f"{block}/dev", f"259:{minor}\n")
            tree.add_text(f"{block}/queue/logical_block_size", "512\n")
            tree.add_directory(f"{block}/holders")
            tree.add_directory(f"{block}/slaves")
            tree.add_link(f"/sys/block/{node}", block)
            tree.add_link(f"/sys/class/block/{node}", block)
            tree.add(f"/dev/{node}", "block").device = (259, minor)
        return f"instance={number},cntlid=1"

    def _delete(self, name: str) -> None:
        for node in [child for child in self._tree.directory(f"/sys/class/nvme/{name}").children if name in child]:
            for directory in ("/sys/block", "/sys/class/block", "/dev"):
                self._tree.remove(f"{directory}/{node}")
        self._tree.remove(f"/sys/class/nvme/{name}")
        del self._controllers[name]
