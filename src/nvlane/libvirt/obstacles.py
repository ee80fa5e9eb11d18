"""What libvirt will get in the way of, said before it happens, each with what to do.

libvirt prepares a host for the devices in its own XML: it labels images, opens /dev for them, lets them lock memory.
It does none of that for what `<qemu:commandline>` names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from nvlane.libvirt import memory
from nvlane.libvirt.capabilities import Feature, LibvirtCapabilities, version_text
from nvlane.libvirt.document import Element, parse_domain
from nvlane.libvirt.edit import sort_out
from nvlane.libvirt.place import kib
from nvlane.libvirt.places import Places
from nvlane.model.device import BlockNode, Device, Frontend, MemoryNeeds, Object, SocketChardev
from nvlane.model.errors import HostError
from nvlane.model.pci import PciAddress
from nvlane.model.size import GIB, KIB, format_size

#: What libvirt adds to the guest's memory for a device that locks it (qemuDomainGetMemLockLimitBytes).
_LOCK_MARGIN = GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing. `stops` if the domain will not start, or the device not work, unless something is done about it."""

    code: str
    text: str
    remedy: str
    stops: bool


def security_models(host_capabilities: str) -> frozenset[str]:
    """The security drivers that this libvirt uses ('apparmor', 'selinux', 'dac'), from `virConnectGetCapabilities`."""
    try:
        root = ElementTree.fromstring(host_capabilities)
    except ElementTree.ParseError as error:
        raise HostError(f"libvirt's capabilities cannot be read: {error}") from error
    return frozenset(model.text for model in root.iterfind("host/secmodel/model") if model.text) - {"none"}


def obstacles(
    xml: str,
    devices: Sequence[Device],
    needs: MemoryNeeds,
    capabilities: LibvirtCapabilities,
    *,
    security: frozenset[str] = frozenset(),
) -> tuple[Obstacle, ...]:
    """Everything that stands between a domain and a lane. `xml` is the domain's before the lane is given to it."""
    root = parse_domain(xml)
    split = sort_out(devices, Places(root), capabilities)
    paths = tuple(_paths(split.commandline))
    return (
        *_missing_devices(devices, capabilities),
        *_confined(root, paths, security, capabilities),
        *_private_dev(paths, split.commandline, capabilities),
        *_session(needs, capabilities),
        *_locking(root, needs),
        *_uncounted(root, devices, capabilities),
        *_memory_info(root, devices, capabilities),
        *_taken_functions(root, devices),
        *_unmanaged(devices, needs),
        *_private_memory(root, needs),
    )


def _missing_devices(devices: Iterable[Device], capabilities: LibvirtCapabilities) -> Iterator[Obstacle]:
    wanted = dict.fromkeys(device.driver for device in devices if isinstance(device, Frontend))
    for driver in wanted:
        if capabilities.devices and driver not in capabilities.devices:
            yield Obstacle(
                code="no-device",
                text=f"the domain's QEMU, {capabilities.emulator}, has no device '{driver}'",
                remedy=f"name a QEMU in <emulator> that has it: '{capabilities.emulator} -device help' lists them",
                stops=True,
            )


def _override(capabilities: LibvirtCapabilities) -> str:
    """Where a host adds to the AppArmor rules of all guests: since 9.6 in files of its own (libvirt's NEWS)."""
    if capabilities.libvirt >= (9, 6, 0):
        return "/etc/apparmor.d/abstractions/libvirt-qemu.d/nvlane"
    return "/etc/apparmor.d/local/abstractions/libvirt-qemu"


def _confined(
    root: Element, paths: Sequence[str], security: frozenset[str], capabilities: LibvirtCapabilities
) -> Iterator[Obstacle]:
    if not paths:
        return
    named = ", ".join(paths)
    if "apparmor" in security and not _unconfined(root, "apparmor"):
        rules = " ".join(shlex.quote(f'"{path}" rwk,') for path in paths)
        yield Obstacle(
            code="apparmor",
            text=f"AppArmor will keep QEMU from {named}: libvirt makes the profile from its own XML, and "
            "<qemu:commandline> is no part of that",
            remedy=f"printf '  %s\\n' {rules} >> {_override(capabilities)} (read when the domain starts)",
            stops=True,
        )
    if "selinux" in security and not _unconfined(root, "selinux"):
        yield Obstacle(
            code="selinux",
            text=f"SELinux will keep QEMU from {named}: libvirt labels what its own XML names, and "
            "<qemu:commandline> is no part of that",
            remedy=f"chcon -t svirt_image_t -l s0 {shlex.join(paths)}; "
            "or give the domain <seclabel type='none' model='selinux'/>",
            stops=True,
        )


def _unconfined(root: Element, model: str) -> bool:
    """`<seclabel type='none'>` for this model, or for whatever there is."""
    labels = list(root.each("seclabel"))
    return any(
        label.attributes.get("type") == "none" and label.attributes.get("model", model) == model for label in labels
    )


def _private_dev(
    paths: Sequence[str], commandline: Sequence[Device], capabilities: LibvirtCapabilities
) -> Iterator[Obstacle]:
    nodes = [path for path in paths if path.startswith("/dev/") and not path.startswith("/dev/shm/")]
    direct = any(isinstance(device, BlockNode) and device.driver == "nvme" for device in commandline)
    passed = any(isinstance(device, Frontend) and device.driver == "vfio-pci" for device in commandline)
    if direct or passed:
        nodes.append("/dev/vfio")
    if nodes and not capabilities.session:
        listed = ", ".join(f'"{node}"' for node in nodes)
        newer = " or update libvirt to 11.5, which has XML for it," if not capabilities.has(Feature.NVME_BUS) else ""
        yield Obstacle(
            code="private-dev",
            text=f"QEMU will not find {', '.join(nodes)}: libvirt gives each domain a /dev of its own, with what its "
            "own XML names",
            remedy=f"take a front end that libvirt {version_text(capabilities.libvirt)} has XML for (virtio-blk),"
            f"{newer} or set namespaces = [] and add {listed} to cgroup_device_acl in /etc/libvirt/qemu.conf",
            stops=True,
        )


def _session(needs: MemoryNeeds, capabilities: LibvirtCapabilities) -> Iterator[Obstacle]:
    if capabilities.session and needs.pinned:
        yield Obstacle(
            code="session-vfio",
            text="a session connection runs QEMU as you, who may neither open /dev/vfio nor lock all guest memory",
            remedy="use --connect qemu:///system",
            stops=True,
        )


def _locking(root: Element, needs: MemoryNeeds) -> Iterator[Obstacle]:
    limit = root.find("memtune/hard_limit")
    if not needs.pinned or limit is None:
        return
    wanted = memory.memory_of(root) * KIB + _LOCK_MARGIN
    if kib(limit) * KIB < wanted:
        yield Obstacle(
            code="hard-limit",
            text=f"<hard_limit> is {format_size(kib(limit) * KIB)}, and libvirt lets QEMU lock no more than that: VFIO "
            f"locks all of the guest's memory and some of QEMU's, {format_size(wanted)}",
            remedy=f"virsh memtune DOMAIN --hard-limit {wanted // KIB} --config, or remove <hard_limit>",
            stops=True,
        )


def _uncounted(root: Element, devices: Iterable[Device], capabilities: LibvirtCapabilities) -> Iterator[Obstacle]:
    direct = any(isinstance(device, BlockNode) and device.driver == "nvme" for device in devices)
    if direct and capabilities.libvirt < (9, 3, 0) and root.find("memtune/hard_limit") is None:
        wanted = 2 * (memory.memory_of(root) + _LOCK_MARGIN // KIB)
        yield Obstacle(
            code="nvme-uncounted",
            text=f"libvirt {version_text(capabilities.libvirt)} does not count <disk type='nvme'> when it limits "
            "what QEMU may lock (9.3 does): beside another VFIO device the limit is too low",
            remedy=f"if QEMU ends with 'Cannot allocate memory': virsh memtune DOMAIN --hard-limit {wanted} --config",
            stops=False,
        )


def _memory_info(root: Element, devices: Iterable[Device], capabilities: LibvirtCapabilities) -> Iterator[Obstacle]:
    ours = {device.driver for device in devices if isinstance(device, Frontend)}
    if "virtio-pmem-pci" not in ours or capabilities.has(Feature.VIRTIO_PMEM):
        return
    if root.find("devices/memory") is not None:
        yield Obstacle(
            code="pmem-beside-memory",
            text=f"libvirt {version_text(capabilities.libvirt)} does not start a domain with virtio-pmem beside a "
            "<memory> device ('virtio-pmem memory device info is not handled yet'; 9.4 does)",
            remedy='write device = "nvdimm" in the lane, or remove the <memory> device, or update libvirt',
            stops=True,
        )


def _functions(devices: Iterable[Device]) -> Iterator[PciAddress]:
    for device in devices:
        if isinstance(device, Frontend) and device.driver == "vfio-pci":
            yield device.host or PciAddress.parse(str(device.properties["host"]))
        if isinstance(device, BlockNode) and device.driver == "nvme":
            yield PciAddress.parse(str(device.options["device"]))


def _taken_functions(root: Element, devices: Iterable[Device]) -> Iterator[Obstacle]:
    ours = set(_functions(devices))
    for element in (*root.iterate("devices/hostdev"), *root.iterate("devices/disk[type=nvme]")):
        source = element.find("source/address")
        if source is None or "slot" not in source.attributes:
            continue
        numbers = (int(source.attributes.get(key, "0"), 0) for key in ("domain", "bus", "slot", "function"))
        function = PciAddress(*numbers)
        if function in ours:
            how = "managed" if "yes" in (element.attributes.get("managed"), element.value("source@managed")) else "own"
            yield Obstacle(
                code="function-taken",
                text=f"the domain has {function} already, as a {how} <{element.name}> of libvirt's",
                remedy=f"virsh detach-device DOMAIN FILE --config with that <{element.name}>, and give it by nvlane",
                stops=True,
            )


def _unmanaged(devices: Iterable[Device], needs: MemoryNeeds) -> Iterator[Obstacle]:
    functions = ", ".join(str(function) for function in _functions(devices))
    if functions and needs.pinned:
        yield Obstacle(
            code="unmanaged",
            text=f"{functions} is managed='no': not libvirt, nvlane takes it from its driver and gives it back",
            remedy="leave it so; with managed='yes' or 'virsh nodedev-reattach' libvirt would bind a driver behind "
            "nvlane's back. 'nvlane detach' or 'nvlane down' gives it back to its driver",
            stops=False,
        )


def _private_memory(root: Element, needs: MemoryNeeds) -> Iterator[Obstacle]:
    if needs.shared and not memory.is_shared(root):
        yield Obstacle(
            code="memory-private",
            text="the domain's memory is private, and a vhost-user target must share it: nvlane sets <memoryBacking>, "
            "which a running domain gets only when it starts anew",
            remedy="shut the domain down and start it again; a reboot from inside keeps the old memory",
            stops=False,
        )


def _paths(devices: Iterable[Device]) -> Iterator[str]:
    """The paths that QEMU opens for devices of the command line."""
    for device in devices:
        match device:
            case SocketChardev():
                yield device.path
            case BlockNode():
                yield from _filenames(device.options)
            case Object():
                if path := device.properties.get("mem-path"):
                    yield str(path)


def _filenames(options: Mapping[str, object]) -> Iterator[str]:
    for key, value in options.items():
        if key == "filename":
            yield str(value)
        elif isinstance(value, Mapping):
            yield from _filenames(value)
