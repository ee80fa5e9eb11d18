"""NVMe drives: controllers with their namespaces, who uses them, and what is on those that nobody uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from nvlane.facts.attribute import attribute, number
from nvlane.facts.content import read_contents
from nvlane.facts.nvme_nodes import controllers, namespace_names
from nvlane.facts.shape import Content, Drive, Namespace, PciFunction
from nvlane.facts.usage import Survey, read_uses
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress

_SECTOR = 512  # /sys/class/block/*/size counts these, whatever the drive's block size (block/genhd.c)


def read_drives(
    host: HostReader,
    functions: Iterable[PciFunction],
    survey: Survey,
    remembered: Mapping[PciAddress, Drive],
) -> tuple[Drive, ...]:
    """Every NVMe controller on PCI, by address. One that no kernel driver has is told from `remembered`."""
    drives = [_read_drive(host, f.address, survey, remembered.get(f.address)) for f in functions if f.is_nvme]
    idle = [n.name for drive in drives if not drive.remembered for n in drive.namespaces if not drive.uses]
    nodes = [part for name in idle for part in survey.blocks.parts(name)]
    contents = read_contents(host, nodes)
    return tuple(dataclasses.replace(d, contents=_contents_of(d, contents, survey)) for d in drives)


def read_namespace(host: HostReader, name: str) -> Namespace:
    """One namespace by its block node. `metadata_size` is 0 on kernels before 6.8, which do not tell it."""
    base = f"/sys/class/block/{name}"
    return Namespace(
        name=name,
        nsid=number(host, f"{base}/nsid", 1),
        size=number(host, f"{base}/size") * _SECTOR,
        block_size=number(host, f"{base}/queue/logical_block_size", _SECTOR),
        metadata_size=number(host, f"{base}/metadata_bytes"),
        wwid=attribute(host, f"{base}/wwid"),
    )


def _read_drive(host: HostReader, address: PciAddress, survey: Survey, known: Drive | None) -> Drive:
    uses = read_uses(host, address, survey)
    for controller in controllers(host, address):
        base = f"/sys/class/nvme/{controller}"
        namespaces = (read_namespace(host, name) for name in namespace_names(host, controller))
        return Drive(
            address=address,
            serial=attribute(host, f"{base}/serial"),
            model=attribute(host, f"{base}/model"),
            controller=controller,
            namespaces=tuple(sorted(namespaces, key=lambda namespace: namespace.nsid)),
            uses=uses,
        )
    if known is not None:
        return dataclasses.replace(known, address=address, controller="", uses=uses, contents=(), remembered=True)
    return Drive(address=address, uses=uses)


def _contents_of(drive: Drive, contents: Iterable[Content], survey: Survey) -> tuple[Content, ...]:
    mine = {part for n in drive.namespaces for part in survey.blocks.parts(n.name)} if drive.controller else set()
    return tuple(content for content in contents if content.device in mine)
