"""A lane for a running domain, and what a libvirt is told to know."""

from __future__ import annotations

import pytest
from domain_lanes import DOMAINS, NEW, lane, libvirt

from nvlane.libvirt.capabilities import Feature, capabilities, version, version_text
from nvlane.libvirt.diff import unified
from nvlane.libvirt.edit import give, settle, take
from nvlane.libvirt.live import live
from nvlane.model.errors import HostError, Refused

TEXTS = {path.stem: path.read_bytes().decode() for path in DOMAINS}
CAPABILITIES = """<domainCapabilities><path>/usr/bin/qemu</path><domain>kvm</domain><machine>q35</machine>
<arch>x86_64</arch><devices><disk supported='yes'><enum name='bus'><value>virtio</value>{bus}</enum></disk>
<hostdev supported='yes'>{iommufd}</hostdev></devices></domainCapabilities>"""


def test_a_drive_for_the_userspace_driver_is_a_fragment_with_an_iothread() -> None:
    wanted = lane("userspace-blk", "lane0")
    now = live(TEXTS["q35-iothread-ids"], wanted.devices, libvirt(), wanted.needs)
    assert now.devices == () and now.threads == (7,)
    (fragment,) = now.fragments
    assert fragment.alias == now.names["lane0"] == "ua-lane0"
    assert "iothread='7'" in fragment.xml and "managed='no'" in fragment.xml


def test_an_emulated_controller_goes_through_the_monitor_on_the_last_free_port() -> None:
    wanted = lane("emulated", "lane0")
    now = live(TEXTS["q35-many-ports"], wanted.devices, libvirt(NEW), wanted.needs)
    assert now.fragments == () and now.devices == wanted.devices
    assert now.buses == {"lane0": "pci.28"}
    busy = frozenset({("pci.28", 0), ("pci.27", 0)})
    assert live(TEXTS["q35-many-ports"], wanted.devices, libvirt(), busy=busy).buses == {"lane0": "pci.26"}
    assert live(TEXTS["i440fx-cloud-image"], wanted.devices, libvirt()).buses == {"lane0": "pci.0"}


def test_a_running_domain_gets_no_new_port() -> None:
    wanted = lane("passthrough", "lane0")
    with pytest.raises(Refused, match="no PCIe root port is free") as refused:
        live(TEXTS["q35-no-free-port"], wanted.devices, libvirt(), wanted.needs)
    assert "--config" in refused.value.remedy


@pytest.mark.parametrize(("kind", "why"), [("vhost-blk", "private memory"), ("nvdimm", "without room for it")])
def test_a_running_domain_keeps_its_memory(kind: str, why: str) -> None:
    wanted = lane(kind, "lane0")
    with pytest.raises(Refused, match=why):
        live(TEXTS["q35-numa-cells"], wanted.devices, libvirt(), wanted.needs)
    room = "q35-virtiofs" if kind == "vhost-blk" else "q35-dimm"
    assert live(TEXTS[room], wanted.devices, libvirt(), wanted.needs).fragments


def test_an_id_that_the_domain_has_is_refused() -> None:
    wanted = lane("emulated", "lane0")
    once = give(TEXTS["q35-many-ports"], wanted.devices, wanted.needs, libvirt(), "lane0")
    with pytest.raises(Refused, match="device with the id 'lane0'"):
        give(once.xml, wanted.devices, wanted.needs, libvirt(), "lane0", standing=[once.record])


def test_what_libvirt_settled_is_taken_back_to_what_was_before() -> None:
    wanted = lane("vhost-blk", "lane0")
    edited = give(TEXTS["q35-many-ports"], wanted.devices, wanted.needs, libvirt(), "lane0")
    shown = edited.xml.replace("<disk type='vhostuser'", "<disk  snapshot='no' type='vhostuser'")
    assert take(shown, settle(edited.record, shown)).xml == TEXTS["q35-many-ports"]


def test_the_list_of_the_capabilities_decides() -> None:
    plain = CAPABILITIES.format(bus="", iommufd="")
    assert Feature.NVME_BUS not in capabilities(12_008_000, 11_001_000, plain).features
    assert (
        Feature.NVME_BUS
        in capabilities(11_003_000, 10_000_002, CAPABILITIES.format(bus="<value>nvme</value>", iommufd="")).features
    )
    no = "<enum name='iommufd'><value>no</value></enum>"
    assert Feature.IOMMUFD not in capabilities(12_008_000, 1, CAPABILITIES.format(bus="", iommufd=no)).features
    assert Feature.IOMMUFD in capabilities(12_008_000, 1, plain).features
    old = capabilities(9_000_000, 7_002_022, plain, session=True)
    assert (old.libvirt, version_text(old.qemu), old.emulator, old.session) == (
        (9, 0, 0),
        "7.2.22",
        "/usr/bin/qemu",
        True,
    )
    assert Feature.VHOST_USER_DISK in old.features and Feature.VIRTIO_PMEM not in old.features
    assert version(12_008_001) == (12, 8, 1)


@pytest.mark.parametrize("text", ["<domainCapabilities>", "<capabilities/>"])
def test_capabilities_that_are_none(text: str) -> None:
    with pytest.raises(HostError, match="domain capabilities"):
        capabilities(9_000_000, 7_002_000, text)


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        ("<domain>", "cannot be read"),
        ("<network/>", "this is no domain's XML"),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>", "document type"),
    ],
)
def test_xml_that_is_no_domains(xml: str, why: str) -> None:
    wanted = lane("passthrough", "lane0")
    with pytest.raises(Refused, match=why):
        give(xml, wanted.devices, wanted.needs, libvirt(), "lane0")


def test_the_diff_is_headed_as_virt_xml_heads_it() -> None:
    assert unified("<a/>\n", "<b/>\n") == "--- Original XML\n+++ Altered XML\n@@ -1 +1 @@\n-<a/>\n+<b/>"
    assert unified("<a/>", "<a/>") == ""
