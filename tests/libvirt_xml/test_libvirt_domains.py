"""Every lane given to every domain of the corpus: the diff is a golden file, and taking the lane gives the bytes back.

The domains are shaped as those of virt-install, virt-manager, OpenStack, KubeVirt, Proxmox and others are; most were
written out by libvirt 9.0. NVLANE_REGENERATE=1 writes the golden files anew: read the difference before committing it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from domain_lanes import DOMAINS, KINDS, lane, libvirt

from nvlane.libvirt.diff import unified
from nvlane.libvirt.document import parse_domain
from nvlane.libvirt.edit import give, take
from nvlane.libvirt.record import Edited
from nvlane.libvirt.slots import device_options, topology
from nvlane.model.codec import decode, encode
from nvlane.model.errors import Refused

REGENERATE = os.environ.get("NVLANE_REGENERATE") == "1"
GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
#: What libvirt 9's schema does not know yet.
NEWER = ("emulated-new", "passthrough-new")


def read(path: Path) -> str:
    """With the line ends that it has."""
    return path.read_bytes().decode()


def given(xml: str, kind: str) -> Edited:
    wanted = lane(kind, "lane0")
    return give(xml, wanted.devices, wanted.needs, libvirt(wanted.version), "lane0", hugepage=wanted.hugepage)


def _section(xml: str, kind: str) -> str:
    try:
        edited = given(xml, kind)
    except Refused as error:
        return f"==== {kind}\nrefused: {error}\n"
    notes = "".join(f"note {note.code}: {note.text}\n" for note in edited.notes)
    return f"==== {kind}\n{notes}{unified(xml, edited.xml, context=1)}\n"


@pytest.mark.parametrize("path", DOMAINS, ids=lambda path: path.stem)
def test_diff_of_each_lane(path: Path) -> None:
    golden = GOLDEN / f"{path.stem}.diff"
    found = "\n".join(_section(read(path), kind) for kind in KINDS)
    if REGENERATE:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert golden.read_text() == found


@pytest.mark.parametrize("path", DOMAINS, ids=lambda path: path.stem)
def test_taking_restores_the_bytes(path: Path) -> None:
    """By the additions alone: a record that is not the shortcut of an XML that nobody has touched."""
    xml = read(path)
    for kind in KINDS:
        try:
            edited = given(xml, kind)
        except Refused:
            continue
        assert take(edited.xml, edited.record).xml == xml
        stored = decode(type(edited.record), encode(edited.record))
        touched = edited.xml.replace("</domain>", "</domain><!-- touched -->")
        taken = take(touched, stored)
        assert taken.notes == ()
        assert taken.xml.replace("</domain><!-- touched -->", "</domain>") == xml, kind


@pytest.mark.parametrize("path", DOMAINS, ids=lambda path: path.stem)
def test_no_two_devices_have_one_place(path: Path) -> None:
    """All lanes at once, on top of each other: every PCI place is given once, and every id."""
    xml, records = read(path), []
    for number, kind in enumerate(KINDS):
        wanted = lane(kind, f"lane{number}")
        try:
            edited = give(xml, wanted.devices, wanted.needs, libvirt(wanted.version), f"lane{number}", standing=records)
        except Refused as error:
            assert "PCI" in error.message or "root bus" in error.message
            continue
        records.append(edited.record)
        xml = edited.xml
    root = parse_domain(xml)
    places = [
        tuple(sorted(address.attributes.items()))
        for device in root.find("devices").children  # type: ignore[union-attr]
        for address in device.each("address")
        if address.attributes.get("type") == "pci"
    ]
    ours = [(o["bus"], o["addr"]) for o in device_options(root) if "addr" in o and "bus" in o]
    seen = topology(root)
    assert seen is not None
    assert len(set(places)) == len(places)
    assert len(set(ours)) == len(ours)
    on_root = sum(1 for bus, _ in ours if bus in ("pcie.0", "pci.0") or bus.startswith("pci."))
    assert len(seen.taken) == len(places) + on_root
    names = [alias.attributes["name"] for alias in root.iterate("devices/disk/alias")]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not SCHEMA.exists() or shutil.which("xmllint") is None, reason="libvirt's schema, xmllint: absent")
def test_libvirts_schema_knows_it_all(tmp_path: Path) -> None:
    """What is valid before is valid with each lane, by libvirt's own RNG schema (package libvirt-common)."""
    files = []
    for path in DOMAINS:
        for kind in KINDS:
            if kind in NEWER:
                continue
            try:
                edited = given(read(path), kind)
            except Refused:
                continue
            file = tmp_path / f"{path.stem}.{kind}.xml"
            file.write_text(edited.xml, newline="")
            files.append(file)
    done = subprocess.run(
        ["xmllint", "--noout", "--nonet", "--relaxng", SCHEMA, *files], capture_output=True, text=True, check=False
    )
    invalid = [line for line in done.stderr.splitlines() if line.endswith("fails to validate")]
    assert done.returncode == 0, "\n".join([*invalid[:10], done.stderr[:3000]])


@pytest.mark.parametrize("machine", ["microvm", "isapc"])
def test_a_board_without_pci_is_refused(machine: str) -> None:
    xml = f"<domain type='kvm'><os><type arch='x86_64' machine='{machine}'>hvm</type></os><devices/></domain>"
    with pytest.raises(Refused, match="has no PCI bus"):
        given(xml, "emulated")


def test_there_is_no_golden_file_without_a_domain() -> None:
    assert {path.stem for path in GOLDEN.glob("*.diff")} == {path.stem for path in DOMAINS}
    assert len(DOMAINS) >= 40
