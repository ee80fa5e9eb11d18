"""What a libvirt can express: derived from its version, QEMU's version and the domain capabilities that it reports.

The versions are those of libvirt's NEWS.rst. Where the domain capabilities list a thing (disk buses, memory models),
the list decides, for a build may lack what its version has.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from nvlane.model.errors import HostError

#: major, minor, micro
Version = tuple[int, int, int]


class Feature(enum.StrEnum):
    """Things that libvirt expresses in XML of its own, rather than through `qemu:commandline`."""

    NVME_SOURCE = "disk type='nvme'"
    VHOST_USER_DISK = "disk type='vhostuser'"
    VHOST_USER_RECONNECT = "reconnect of disk type='vhostuser'"
    NVDIMM = "memory model='nvdimm'"
    VIRTIO_PMEM = "memory model='virtio-pmem'"
    NVME_BUS = "target bus='nvme'"
    IOMMUFD = "hostdev with iommufd"


#: The release that brought each.
SINCE: Final[dict[Feature, Version]] = {
    Feature.NVME_SOURCE: (6, 0, 0),
    Feature.NVDIMM: (3, 2, 0),
    # In 7.1, but up to 9.3 a domain with one does not start: 'virtio-pmem memory device info is not handled yet'.
    Feature.VIRTIO_PMEM: (9, 4, 0),
    Feature.VHOST_USER_DISK: (7, 1, 0),
    Feature.VHOST_USER_RECONNECT: (7, 1, 0),
    Feature.NVME_BUS: (11, 5, 0),
    Feature.IOMMUFD: (12, 1, 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtCapabilities:
    """One libvirt with one QEMU, for one type of domain.

    `domain_type` is 'kvm' or 'qemu'. `devices` are the device types of the QEMU binary (`qom-list-types`), where the
    caller has asked it; empty means that nobody did, and nothing is concluded from it. `session` is true for a
    connection without privileges (qemu:///session).
    """

    libvirt: Version
    qemu: Version
    emulator: str
    domain_type: str
    arch: str
    machine: str
    features: frozenset[Feature]
    devices: frozenset[str] = frozenset()
    session: bool = False

    def has(self, feature: Feature) -> bool:
        return feature in self.features


def version(number: int) -> Version:
    """libvirt's and QEMU's versions as libvirt's C API gives them: 9000000 is 9.0.0."""
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000


def version_text(numbers: Version) -> str:
    return ".".join(str(number) for number in numbers)


def capabilities(
    libvirt: int,
    qemu: int,
    domain_capabilities: str,
    *,
    devices: frozenset[str] = frozenset(),
    session: bool = False,
) -> LibvirtCapabilities:
    """From `virConnectGetLibVersion`, `virConnectGetVersion` and `virConnectGetDomainCapabilities` (XML text).

    Ask for the domain capabilities with the domain's own emulator, architecture, machine type and domain type. Raises
    HostError for XML that is no `<domainCapabilities>`.
    """
    try:
        root = ElementTree.fromstring(domain_capabilities)
    except ElementTree.ParseError as error:
        raise HostError(f"libvirt's domain capabilities cannot be read: {error}") from error
    if root.tag != "domainCapabilities":
        raise HostError(f"libvirt's domain capabilities begin with <{root.tag}>")
    numbers = version(libvirt)
    features = {feature for feature, since in SINCE.items() if numbers >= since}
    _narrow(features, root, Feature.NVME_BUS, "devices/disk/enum[@name='bus']/value", "nvme")
    memory = "devices/memory/enum[@name='model']/value"
    _narrow(features, root, Feature.NVDIMM, memory, "nvdimm")
    _narrow(features, root, Feature.VIRTIO_PMEM, memory, "virtio-pmem")
    _narrow(features, root, Feature.IOMMUFD, "devices/hostdev/enum[@name='iommufd']/value", "yes")
    return LibvirtCapabilities(
        libvirt=numbers,
        qemu=version(qemu),
        emulator=root.findtext("path", ""),
        domain_type=root.findtext("domain", ""),
        arch=root.findtext("arch", ""),
        machine=root.findtext("machine", ""),
        features=frozenset(features),
        devices=devices,
        session=session,
    )


def _narrow(features: set[Feature], root: ElementTree.Element, feature: Feature, path: str, value: str) -> None:
    """A list that is there decides; a libvirt that has no such list is taken by its version."""
    listed = {item.text for item in root.iterfind(path)}
    if listed:
        if value in listed:
            features.add(feature)
        else:
            features.discard(feature)
