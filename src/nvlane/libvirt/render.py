"""Typed devices as libvirt's own XML, where this libvirt has words for all that a device says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nvlane.libvirt import disks
from nvlane.libvirt.capabilities import Feature, version_text
from nvlane.libvirt.disks import Renderer, pci_address
from nvlane.libvirt.lane import Rendered, alias, only
from nvlane.libvirt.markup import Node, node
from nvlane.libvirt.record import Notice
from nvlane.model.device import Frontend, Object
from nvlane.model.pci import PciAddress
from nvlane.model.size import KIB


def first_class(head: Frontend, at: Renderer) -> Rendered | None:
    """The part of the lane that `head` is the front end of; None when it has to go through `<qemu:commandline>`."""
    renderer = _RENDERERS.get(head.driver)
    return renderer(head, at) if renderer is not None else None


def hostdev(head: Frontend, at: Renderer) -> Rendered | None:
    """managed='no': nvlane moves the function to vfio-pci and back, with checks and a journal that libvirt lacks."""
    backend = at.lane.object(head, "iommufd")
    if not only(head.properties, "host", "iommufd"):
        return None
    host = head.host or PciAddress.parse(str(head.properties["host"]))
    notes: tuple[Notice, ...] = ()
    new = backend is not None and at.capabilities.has(Feature.IOMMUFD)
    if backend is not None and not new:
        text = f"libvirt {version_text(at.capabilities.libvirt)} has no iommufd (12.1): the VFIO container is used"
        notes = (Notice(code="no-iommufd", text=text, remedy='write lane.iommu = "container", or update libvirt'),)
    element = node(
        "hostdev",
        node("driver", iommufd="yes") if new else None,
        node("source", pci_address(host)),
        node("alias", name=alias(head.id)),
        at.address(head.driver),
        mode="subsystem",
        type="pci",
        managed="no",
    )
    covers = {head.id, *([backend.id] if backend else [])}
    return Rendered(devices=(element,), covers=frozenset(covers), names={head.id: alias(head.id)}, notes=notes)


def nvdimm(head: Frontend, at: Renderer) -> Rendered | None:
    backend = at.lane.object(head, "memdev")
    if backend is None or not at.capabilities.has(Feature.NVDIMM):
        return None
    if not only(head.properties, "memdev", "label-size", "unarmed", "node") or not _plain_file(
        backend, "align", "pmem"
    ):
        return None
    properties = backend.properties
    size, label = int(str(properties["size"])), int(str(head.properties.get("label-size", 0)))
    source = node(
        "source",
        node("path", text=str(properties["mem-path"])),
        node("alignsize", text=int(str(properties["align"])) // KIB, unit="KiB") if "align" in properties else None,
        node("pmem") if properties.get("pmem") else None,
    )
    target = node(
        "target",
        _kib("size", size),
        node("node", text=str(head.properties.get("node", 0))),
        node("label", _kib("size", label)) if label else None,
        node("readonly") if head.properties.get("unarmed") else None,
    )
    element = node("memory", source, target, node("alias", name=alias(head.id)), model="nvdimm", access="shared")
    return _memory(element, head, backend, size)


def virtio_pmem(head: Frontend, at: Renderer) -> Rendered | None:
    backend = at.lane.object(head, "memdev")
    known = at.capabilities.has(Feature.VIRTIO_PMEM)
    if backend is None or not known or not only(head.properties, "memdev") or not _plain_file(backend):
        return None
    size = int(str(backend.properties["size"]))
    element = node(
        "memory",
        node("source", node("path", text=str(backend.properties["mem-path"]))),
        node("target", _kib("size", size)),
        node("alias", name=alias(head.id)),
        at.address(head.driver),
        model="virtio-pmem",
        access="shared",
    )
    return _memory(element, head, backend, size)


def _memory(element: Node, head: Frontend, backend: Object, size: int) -> Rendered:
    return Rendered(
        devices=(element,),
        covers=frozenset({head.id, backend.id}),
        names={head.id: alias(head.id)},
        memory=size // KIB,
    )


def _plain_file(backend: Object, *further: str) -> bool:
    """A file mapped shared, with nothing that libvirt cannot say of it."""
    names = {"size", "share", "mem-path", *further}
    return (
        backend.qom_type == "memory-backend-file"
        and backend.properties.keys() <= names
        and backend.properties.get("share") is True
        and int(str(backend.properties["size"])) % KIB == 0
    )


def _kib(tag: str, size: int) -> Node:
    return node(tag, text=size // KIB, unit="KiB")


_RENDERERS: Final[Mapping[str, Callable[[Frontend, Renderer], Rendered | None]]] = {
    "virtio-blk-pci": disks.virtio_blk,
    "virtio-scsi-pci": disks.on_controller,
    "ich9-ahci": disks.on_controller,
    "qemu-xhci": disks.on_controller,
    "nvme": disks.nvme,
    "vhost-user-blk-pci": disks.vhost_user_blk,
    "vfio-pci": hostdev,
    "nvdimm": nvdimm,
    "virtio-pmem-pci": virtio_pmem,
}
