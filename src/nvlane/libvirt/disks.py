"""Block front ends as `<disk>` and `<controller>`.

A drive that QEMU's own NVMe driver opens is `<disk type='nvme'>`, managed='no', for nvlane has prepared the host. A
vhost-user target is `<disk type='vhostuser'>`. Images and block devices get an emulated NVMe controller of libvirt's
from 11.5 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nvlane.libvirt.capabilities import Feature, LibvirtCapabilities
from nvlane.libvirt.lane import LaneDevices, Rendered, alias, only
from nvlane.libvirt.markup import Node, node
from nvlane.libvirt.places import Places
from nvlane.libvirt.record import Notice
from nvlane.model.device import BlockNode, Frontend
from nvlane.model.pci import PciAddress

_BLOCKS = ("logical_block_size", "physical_block_size")
#: What libvirt's XML has no words for, and `<qemu:override>` has.
_TUNING = ("ioeventfd", "max_ioqpairs", "msix_qsize")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A block node in libvirt's words: the type of the disk, its source, and the options of its driver."""

    kind: str
    source: Node
    driver: Mapping[str, str]
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """What every rendering needs."""

    lane: LaneDevices
    places: Places
    capabilities: LibvirtCapabilities
    hot: bool = False

    def address(self, driver: str, *, port: bool = True) -> Node | None:
        """An explicit PCI place; none where libvirt has yet to choose those of all devices."""
        return self.places.spot(driver, port=port).address if self.places.known else None


def virtio_blk(head: Frontend, at: Renderer) -> Rendered | None:
    drive = at.lane.drive(head)
    source = _source(drive, at)
    if source is None or drive is None:
        return None
    if not only(head.properties, "drive", "serial", "iothread", "num-queues", *_BLOCKS):
        return None
    thread, covers = _thread(head, at)
    options: dict[str, str | int] = {}
    if "num-queues" in head.properties:
        options["queues"] = str(head.properties["num-queues"])
    if thread:
        options["iothread"] = thread
    disk = _disk(source, at.places.target("vd"), "virtio", head, options, at.address(head.driver))
    return Rendered(
        devices=(disk,),
        covers=frozenset({head.id, drive.node_name, *covers}),
        names={head.id: alias(head.id)},
        threads=(thread,) if thread else (),
    )


def on_controller(head: Frontend, at: Renderer) -> Rendered | None:
    """A controller with one disk: virtio-scsi, AHCI or xHCI."""
    kinds = {"virtio-scsi-pci": "scsi", "ich9-ahci": "sata", "qemu-xhci": "usb"}
    riders = at.lane.riders(head)
    kind = kinds.get(head.driver)
    if (
        kind is None
        or (at.hot and kind != "scsi")
        or len(riders) != 1
        or not only(head.properties, "iothread", "num_queues")
    ):
        return None
    rider = riders[0]
    drive = at.lane.drive(rider)
    source = _source(drive, at)
    if (
        source is None
        or drive is None
        or not only(rider.properties, "drive", "serial", "bus", "scsi-id", "lun", *_BLOCKS)
    ):
        return None
    if kind == "usb" and at.places.root.find("devices/controller[type=usb]") is None:
        return None  # a domain without USB: libvirt would add a controller of its own, too
    thread, covers = _thread(head, at)
    index = at.places.controller(kind)
    models = {"scsi": {"model": "virtio-scsi"}, "usb": {"model": "qemu-xhci"}}.get(kind, {})
    options = {"queues": str(head.properties["num_queues"])} if "num_queues" in head.properties else {}
    if thread:
        options["iothread"] = str(thread)
    controller = node(
        "controller",
        node("driver", **options) if options else None,
        node("alias", name=alias(head.id)),
        at.address(head.driver, port=kind != "sata"),
        type=kind,
        index=index,
        **models,
    )
    if kind == "usb":
        address = node("address", type="usb", bus=index, port=1)
    else:
        address = node("address", type="drive", controller=index, bus=0, target=0, unit=0)
    disk = _disk(source, at.places.target("sd"), kind, rider, {}, address)
    return Rendered(
        devices=(controller, disk),
        covers=frozenset({head.id, rider.id, drive.node_name, *covers}),
        names={head.id: alias(head.id), rider.id: alias(rider.id)},
        threads=(thread,) if thread else (),
    )


def nvme(head: Frontend, at: Renderer) -> Rendered | None:
    """A controller with plain namespaces, numbered from 1; all else that the protocol has is the command line's."""
    # libvirt hot-plugs no NVMe controllers (qemuDomainAttachControllerDevice knows SCSI ones only).
    if (
        at.hot
        or not at.capabilities.has(Feature.NVME_BUS)
        or not only(head.properties, "serial", "drive", *_TUNING, *_BLOCKS)
    ):
        return None
    spaces = at.lane.riders(head) or (head,)
    sources = [_source(at.lane.drive(space), at) for space in spaces]
    numbers = [int(str(space.properties.get("nsid", 1))) for space in spaces]
    if numbers != list(range(1, len(spaces) + 1)) or not all(sources):
        return None
    if not all(only(space.properties, "drive", "bus", "nsid", "serial", *_TUNING, *_BLOCKS) for space in spaces):
        return None
    index = at.places.controller("nvme")
    controller = node(
        "controller",
        node("serial", text=str(head.properties.get("serial", ""))) if "serial" in head.properties else None,
        node("alias", name=alias(head.id)),
        at.address(head.driver),
        type="nvme",
        index=index,
    )
    disks, names, covers = [], {head.id: alias(head.id)}, {head.id}
    for number, space, source in zip(numbers, spaces, sources, strict=True):
        assert source is not None
        own = f"{head.id}-ns1" if space is head else space.id
        covers |= {space.id, str(space.properties["drive"])}
        names.setdefault(space.id, alias(own))
        disks.append(_disk(source, f"nvme{index}n{number}", "nvme", space, {}, None, own=own, serial=False))
    tuning = {key: head.properties[key] for key in _TUNING if key in head.properties}
    return Rendered(
        devices=(controller, *disks),
        covers=frozenset(covers),
        names=names,
        overrides={alias(head.id): {key: value for key, value in tuning.items() if isinstance(value, int)}},
    )


def vhost_user_blk(head: Frontend, at: Renderer) -> Rendered | None:
    link = at.lane.chardev(head)
    known = at.capabilities.has(Feature.VHOST_USER_DISK)
    if link is None or not known or not only(head.properties, "chardev", "num-queues", "queue-size"):
        return None
    options = {
        name: str(head.properties[key])
        for key, name in (("num-queues", "queues"), ("queue-size", "queue_size"))
        if key in head.properties
    }
    # libvirt counts in seconds; nvlane's own pause is shorter (lanes/vhost_user.py).
    seconds = -(-link.reconnect_ms // 1000)
    again = node("reconnect", enabled="yes", timeout=seconds) if seconds else None
    disk = node(
        "disk",
        node("driver", name="qemu", type="raw", **options),
        node("source", again, type="unix", path=link.path),
        node("target", dev=at.places.target("vd"), bus="virtio"),
        node("alias", name=alias(head.id)),
        at.address(head.driver),
        type="vhostuser",
        device="disk",
    )
    notes: tuple[Notice, ...] = ()
    if link.reconnect_ms and link.reconnect_ms % 1000:
        text = f"libvirt counts in seconds: QEMU tries again {seconds} s after the target has ended, not at once"
        notes = (Notice(code="reconnect-seconds", text=text),)
    return Rendered(devices=(disk,), covers=frozenset({head.id, link.id}), names={head.id: alias(head.id)}, notes=notes)


def _thread(head: Frontend, at: Renderer) -> tuple[int, tuple[str, ...]]:
    """A new iothread for a front end that has one, and the id of the object that it stands for."""
    thread = at.lane.object(head, "iothread")
    return (at.places.iothread(), (thread.id,)) if thread is not None else (0, ())


def _source(drive: BlockNode | None, at: Renderer) -> _Source | None:
    if drive is None:
        return None
    if drive.driver == "nvme":
        known = at.capabilities.has(Feature.NVME_SOURCE)
        good = known and only(drive.options, "device", "namespace", "discard", "read-only")
        return _nvme_source(drive) if good else None
    file = drive.options.get("file")
    if not isinstance(file, Mapping) or not only(drive.options, "file", "discard", "read-only"):
        return None
    if not only(file, "driver", "filename", "aio", "cache", "discard", "read-only"):
        return None
    kind, attribute = {"file": ("file", "file"), "host_device": ("block", "dev")}.get(str(file["driver"]), ("", ""))
    if not kind:
        return None
    cache = file.get("cache")
    direct = isinstance(cache, Mapping) and bool(cache.get("direct"))
    driver = {"type": drive.driver, "cache": "none" if direct else "writeback"}
    driver |= {"io": str(file["aio"])} if "aio" in file else {}
    return _Source(
        kind=kind,
        source=Node(tag="source", attributes={attribute: str(file["filename"])}),
        driver=driver | _discard(drive),
        read_only=bool(drive.options.get("read-only")),
    )


def _nvme_source(drive: BlockNode) -> _Source:
    address = PciAddress.parse(str(drive.options["device"]))
    namespace = str(drive.options.get("namespace", 1))
    return _Source(
        kind="nvme",
        source=node("source", pci_address(address), type="pci", managed="no", namespace=namespace),
        driver={"type": "raw", **_discard(drive)},
        read_only=bool(drive.options.get("read-only")),
    )


def _discard(drive: BlockNode) -> dict[str, str]:
    return {"discard": str(drive.options["discard"])} if "discard" in drive.options else {}


def pci_address(address: PciAddress) -> Node:
    """An address of the host, as sources have it."""
    return node(
        "address",
        domain=f"0x{address.domain:04x}",
        bus=f"0x{address.bus:02x}",
        slot=f"0x{address.device:02x}",
        function=f"0x{address.function:x}",
    )


def _disk(
    source: _Source,
    target: str,
    bus: str,
    frontend: Frontend,
    options: Mapping[str, str | int],
    address: Node | None,
    *,
    own: str = "",
    serial: bool = True,
) -> Node:
    sizes = {key: str(frontend.properties[key]) for key in _BLOCKS if key in frontend.properties}
    plain = set(sizes.values()) <= {"512"}
    name = str(frontend.properties.get("serial", "")) if serial else ""
    return node(
        "disk",
        node("driver", name="qemu", **source.driver, **options),
        source.source,
        node("blockio", **sizes) if sizes and not plain else None,
        node("target", dev=target, bus=bus),
        node("readonly") if source.read_only else None,
        node("serial", text=name) if name else None,
        node("alias", name=alias(own or frontend.id)),
        address,
        type=source.kind,
        device="disk",
    )
