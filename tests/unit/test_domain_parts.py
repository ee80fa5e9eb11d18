"""The parts of libvirt support that need no libvirtd: reading a domain's XML, owners of paths, a missing library."""

from __future__ import annotations

import sys

import pytest

from nvlane.apply.memory import MemoryHost
from nvlane.apply.operations.operation import Fate
from nvlane.apply.operations.owner import DisownPathReversal, OwnPathOperation
from nvlane.libvirt.outline import outline, owner_of_qemu
from nvlane.model.device import MemoryNeeds
from nvlane.model.errors import HostError
from nvlane.model.size import GIB, MIB
from nvlane.plan.domain_step import OwnPath
from nvlane.wire.libvirt import Libvirt

DOMAIN = """<domain type='kvm'><name>vm</name><uuid>u-1</uuid>
<maxMemory slots='3' unit='GiB'>4</maxMemory><memory>1048576</memory><vcpu placement='static'>2</vcpu>
<memoryBacking><access mode='shared'/></memoryBacking>
<os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
<devices><emulator>/usr/bin/qemu</emulator><memory model='nvdimm'/>
<channel type='unix'><source mode='bind' path='/run/x'/><target type='virtio' name='org.nvlane.probe.0'/></channel>
</devices><seclabel type='static' model='dac'><label>+7:+8</label></seclabel></domain>"""


def test_a_domain_is_read() -> None:
    seen = outline(DOMAIN)
    assert (seen.name, seen.kind, seen.emulator, seen.machine) == ("vm", "kvm", "/usr/bin/qemu", "pc-q35-10.0")
    assert (seen.memory, seen.cpus, seen.owner) == (GIB, 2, (7, 8))
    assert seen.room == MemoryNeeds(shared=True, slots=2, hotplug=3 * GIB, nvdimm=True)
    probe = seen.channel("org.nvlane.probe.0")
    assert probe is not None
    assert probe.path == "/run/x"


def test_shared_cells_are_shared_memory() -> None:
    text = (
        "<domain type='qemu'><memory unit='MiB'>64</memory><cpu><numa><cell id='0' memAccess='{}'/></numa></cpu>"
        "<devices/></domain>"
    )
    assert outline(text.format("shared")).room.shared
    assert not outline(text.format("private")).room.shared
    assert outline(text).memory == 64 * MIB


@pytest.mark.parametrize("text", ["", "<network/>", "<domain>"])
def test_what_is_no_domain_is_said(text: str) -> None:
    with pytest.raises(HostError):
        outline(text)


def test_whose_qemu_is() -> None:
    text = (
        "<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>"
        "<baselabel type='kvm'>+64055:+104</baselabel></secmodel></host></capabilities>"
    )
    assert owner_of_qemu(text, "qemu") == (64055, 104)
    assert owner_of_qemu("<capabilities><host/></capabilities>", "kvm") is None


def test_a_path_is_given_and_given_back() -> None:
    host = MemoryHost()
    host.create_file("/tmp/image", b"text")
    step, operation, reversal = OwnPath(path="/tmp/image", uid=7, gid=8), OwnPathOperation(), DisownPathReversal()
    found = operation.observe(host, step)
    operation.check(host, step, found)
    operation.perform(host, step, found, lambda _: None)
    assert (host.stat("/tmp/image").uid, host.stat("/tmp/image").gid) == (7, 8)
    assert operation.inverse(step, operation.observe(host, step), None) is None  # it has that owner
    inverse = operation.inverse(step, found, None)
    assert inverse is not None
    host.chown("/tmp/image", 1, 1)
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.KEPT
    host.chown("/tmp/image", 7, 8)
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.PUT_BACK
    assert host.stat("/tmp/image").uid == 0
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.ALREADY
    host.unlink("/tmp/image")
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.ALREADY


def test_a_missing_library_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)  # what import does for a module that is not there
    with pytest.raises(HostError, match="libvirt-python is not there") as caught:
        Libvirt.connect("qemu:///system")
    assert "nvlane[libvirt]" in caught.value.remedy
    assert "python3-libvirt" in caught.value.remedy
