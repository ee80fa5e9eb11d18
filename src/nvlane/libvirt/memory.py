"""A domain's memory as lanes need it: shared for a target, with room for memory devices."""

from __future__ import annotations

from typing import Final

from nvlane.libvirt.document import Element
from nvlane.libvirt.editor import Editor
from nvlane.libvirt.markup import node
from nvlane.libvirt.place import kib
from nvlane.model.size import KIB

_HEAD: Final = ("name", "uuid", "genid", "title", "description", "metadata")
_SIZES: Final = (*_HEAD, "maxMemory", "memory", "currentMemory")
_CELLS: Final = "cpu/numa/cell"


def is_shared(root: Element) -> bool:
    """Whether every part of the guest's memory can be mapped by a vhost-user target."""
    access = root.value("memoryBacking/access@mode")
    cells = [cell.attributes.get("memAccess", access) for cell in root.iterate(_CELLS)] or [access]
    devices = [d.attributes.get("access", "shared") for d in root.iterate("devices/memory")]
    return all(mode == "shared" for mode in (*cells, *devices))


def share(editor: Editor, hugepage: int = 0) -> None:
    """Every part of the memory shared: in a memfd, or in the hugepages that are there already.

    `hugepage` (bytes) asks for pages of that size where the domain has none.
    """
    backing = editor.container("", "memoryBacking", after=_SIZES)
    if hugepage and editor.root.find(f"{backing}/hugepages") is None:
        inner = editor.container(backing, "hugepages")
        editor.setting(inner, node("page", size=hugepage // KIB, unit="KiB"))
    source = editor.root.value(f"{backing}/source@type")
    if source == "anonymous" or (not source and editor.root.find(f"{backing}/hugepages") is None) or source == "memfd":
        editor.setting(backing, node("source", type="memfd"))
    editor.setting(backing, node("access", mode="shared"))
    for cell in list(editor.root.iterate(_CELLS)):
        if "memAccess" in cell.attributes:
            editor.attribute(f"{_CELLS}[id={cell.attributes.get('id', '0')}]", "memAccess", "shared")


def make_room(editor: Editor, hotplug: int, slots: int) -> None:
    """`<maxMemory>` with room for memory devices (bytes, number of slots), and the NUMA cell that it needs.

    libvirt adds a cell by itself where there is none (qemuDomainDefNumaAutoAdd): written here, it is seen in the diff
    and taken away again.
    """
    root = editor.root
    memory = root.find("memory")
    total = kib(memory) if memory is not None else 0
    devices = sum(_size(device) for device in root.iterate("devices/memory"))
    editor.raise_amount("", "maxMemory", hotplug // KIB, total, after=_HEAD, slots="0")
    editor.raise_count("maxMemory", "slots", max(slots, 1))
    editor.container("", "cpu", after=("features", "os", *_SIZES))
    vcpus = int(root.value("vcpu") or "1")
    if next(root.iterate(_CELLS), None) is not None and not _our_cell(editor):
        return
    numa = editor.container("cpu", "numa")
    cell = node("cell", id=0, cpus=f"0-{vcpus - 1}" if vcpus > 1 else "0", memory=total - devices, unit="KiB")
    if editor.root.find(_CELLS) is None:
        editor.insert(numa, [cell])
    else:
        editor.share_standing(numa, "cell")


def _our_cell(editor: Editor) -> bool:
    return editor.has_standing("cpu/numa", "cell")


def add_device_memory(editor: Editor, amount: int) -> None:
    """`<memory>` counts memory devices, too (KiB)."""
    editor.raise_amount("", "memory", amount, 0)


def _size(device: Element) -> int:
    size = device.find("target/size")
    return kib(size) if size is not None else 0


def memory_of(root: Element) -> int:
    """All memory of the guest in KiB."""
    memory = root.find("memory")
    return kib(memory) if memory is not None else 0
