"""Any lanes, given to any domain of the corpus in any order and taken in any other, leave nothing behind.

Twice: in the bytes, where nobody touched the XML in between, and in what it says, where libvirt has written it anew.
"""

from __future__ import annotations

from as_libvirt_writes import rewritten
from domain_lanes import DOMAINS, KINDS, lane, libvirt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from nvlane.libvirt.edit import give, take
from nvlane.libvirt.record import Record
from nvlane.model.errors import Refused

TEXTS = {path.stem: path.read_bytes().decode() for path in DOMAINS}
#: Those that libvirt has been through: to the other one it would give its addresses first.
DEFINED = sorted(TEXTS.keys() - {"not-yet-defined"})
LANES = some.lists(some.sampled_from(KINDS), min_size=1, max_size=4)
FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _give_all(xml: str, kinds: list[str], *, libvirt_between: bool) -> tuple[str, dict[str, Record]]:
    standing: dict[str, Record] = {}
    for number, kind in enumerate(kinds):
        name = f"lane{number}"
        wanted = lane(kind, name)
        capable = libvirt(wanted.version)
        records = tuple(standing.values())
        try:
            edited = give(xml, wanted.devices, wanted.needs, capable, name, standing=records, hugepage=wanted.hugepage)
        except Refused:
            continue
        standing[name] = edited.record
        xml = rewritten(edited.xml) if libvirt_between else edited.xml
    return xml, standing


@FEW
@given(name=some.sampled_from(sorted(TEXTS)), kinds=LANES, order=some.randoms(use_true_random=False))
def test_the_bytes_come_back(name: str, kinds: list[str], order: object) -> None:
    xml, standing = _give_all(TEXTS[name], kinds, libvirt_between=False)
    names = list(standing)
    order.shuffle(names)  # type: ignore[attr-defined]
    for lane_name in names:
        taken = take(xml, standing.pop(lane_name), standing=tuple(standing.values()))
        assert taken.notes == ()
        xml = taken.xml
        assert f"ua-{lane_name}'" not in xml
        for other, record in standing.items():
            assert all(f"{other}" in xml for addition in record.additions if other in addition.new)
    assert xml == TEXTS[name]


@FEW
@given(name=some.sampled_from(DEFINED), kinds=LANES, order=some.randoms(use_true_random=False))
def test_what_it_said_comes_back_through_libvirt(name: str, kinds: list[str], order: object) -> None:
    before = rewritten(TEXTS[name])
    xml, standing = _give_all(before, kinds, libvirt_between=True)
    names = list(standing)
    order.shuffle(names)  # type: ignore[attr-defined]
    for lane_name in names:
        taken = take(xml, standing.pop(lane_name), standing=tuple(standing.values()))
        assert taken.notes == ()
        xml = rewritten(taken.xml)
    assert xml == before


def test_what_somebody_else_changed_meanwhile_stays() -> None:
    """A disk more and another title: the lane goes, these stay."""
    before = TEXTS["i440fx-cloud-image"]
    wanted = lane("vhost-blk", "lane0")
    edited = give(before, wanted.devices, wanted.needs, libvirt(), "lane0")
    disk = "<disk type='file' device='disk'><source file='/x'/><target dev='vdz' bus='virtio'/></disk>"
    changed = edited.xml.replace("</devices>", f"{disk}</devices>").replace("<name>", "<title>t</title><name>")
    taken = take(changed, edited.record)
    assert taken.notes == ()
    assert taken.xml == before.replace("</devices>", f"{disk}</devices>").replace("<name>", "<title>t</title><name>")


def test_a_device_that_is_gone_is_named() -> None:
    before = TEXTS["i440fx-cloud-image"]
    wanted = lane("passthrough", "lane0")
    edited = give(before, wanted.devices, wanted.needs, libvirt(), "lane0")
    taken = take(before + "\n", edited.record)
    assert taken.xml == before + "\n"
    assert [note.code for note in taken.notes] == ["already-gone"]
    assert "<hostdev>" in taken.notes[0].text


def test_a_port_that_somebody_uses_stays() -> None:
    before = TEXTS["q35-no-free-port"]
    wanted = lane("passthrough", "lane0")
    edited = give(before, wanted.devices, wanted.needs, libvirt(), "lane0")
    (port,) = edited.ports
    address = f"<address type='pci' domain='0x0000' bus='0x{port:02x}' slot='0x00' function='0x0'/>"
    watchdog = f"<watchdog model='i6300esb'>{address}</watchdog>"
    changed = edited.xml.replace("</devices>", f"{watchdog}</devices>")
    taken = take(changed, edited.record)
    assert [note.code for note in taken.notes] == ["port-kept"]
    assert f"index='{port}' model='pcie-root-port'" in taken.xml
    assert "<hostdev" not in taken.xml
