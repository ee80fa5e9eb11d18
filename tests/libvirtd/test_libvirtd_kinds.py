"""Other kinds of domains than a persistent one on q35 that root has: what works there, and what is refused and why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from libvirt_room import URI, Room
from room_domains import IMAGES, definition
from room_lanes import LANES

SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
#: Room for memory devices, as a domain has it whose owner means to add some.
SLOTS = "<maxMemory slots='4' unit='MiB'>4096</maxMemory>"
CELL = "<numa><cell id='0' cpus='0' memory='384' unit='MiB'/></numa></cpu>"
SESSION = "qemu:///session"


@pytest.fixture(autouse=True)
def images(stand: Room) -> Iterator[None]:
    yield
    stand.shell(f"rm -f {IMAGES}/*.img {IMAGES}/*.qcow2")


def test_a_transient_domain_on_i440fx(stand: Room) -> None:
    """It has no definition, so lanes are plugged in and out; its PCI bus has no ports, and the lanes have slots."""
    stand.write("/tmp/pc.xml", definition("pc", machine="pc", extra=SHARED).replace("@CMDLINE@", stand.cmdline))
    stand.virsh("create", "/tmp/pc.xml")
    refused = stand.nvlane("attach", "--config", "--connect", URI, "--yes", "pc", stand.lane("emu", LANES["emu"]))
    assert refused.status == 1
    assert "transient" in refused.err
    # The second proof of `emu` is written over the first one.
    for name in ("emu", "blk", "emu"):
        said = stand.nvlane("attach", "--json", "--connect", URI, "--yes", "pc", stand.lane(name, LANES[name])).ok()
        assert said.json["verified"] is True
        stand.nvlane("detach", "--yes", "pc", name).ok()
    down = stand.nvlane("down", "--json", "pc").ok().json[0]
    assert [proof["ok"] for proof in down["proofs"]] == [True] * 2
    assert stand.left() == ""
    stand.virsh("destroy", "pc")


def test_a_transient_domain_that_ends_with_a_lane(stand: Room) -> None:
    """It is gone, with all that it had of nvlane; the host is put back."""
    stand.write("/tmp/pc.xml", definition("pc", boots=False))
    stand.virsh("create", "/tmp/pc.xml")
    lane = stand.lane("emu", LANES["emu"])
    stand.nvlane("attach", "--no-verify", "--connect", URI, "--yes", "pc", lane).ok()
    stand.virsh("destroy", "pc")
    assert "undefined meanwhile" in stand.nvlane("status", "pc").ok().out
    stand.nvlane("restore", "pc").ok()
    assert stand.left() == ""


def test_persistent_memory_into_a_running_domain(stand: Room) -> None:
    """Where the domain has room for memory devices. It stays until a shutdown; then it goes."""
    plain = definition("mem", memory=384)
    assert plain.count("</cpu>") == 1
    before = stand.define(plain.replace("<vcpu>", f"{SLOTS}<vcpu>").replace("</cpu>", CELL))
    stand.virsh("start", "mem")
    # QEMU has the controller of NVDIMMs only where it was started with it.
    nvdimm = stand.nvlane("attach", "--connect", URI, "--yes", "mem", stand.lane("nv", LANES["nv"]))
    assert nvdimm.status == 3
    assert "--config" in nvdimm.err
    if stand.suite != "bookworm":  # its libvirt has no virtio-pmem
        given = stand.nvlane("attach", "--json", "--connect", URI, "--yes", "mem", stand.lane("pmem", LANES["pmem"]))
        assert given.ok().json["verified"] is True
        kept = stand.nvlane("detach", "--yes", "mem", "pmem")
        assert kept.status == 1
        assert "virsh shutdown mem" in kept.err
    stand.virsh("destroy", "mem")
    if stand.suite != "bookworm":
        stand.nvlane("detach", "--yes", "mem", "pmem").ok()
    assert stand.definition("mem") == before
    assert stand.left() == ""
    stand.virsh("undefine", "mem")


def test_an_nvdimm_into_a_running_domain(stand: Room) -> None:
    """Where it was started with one, and has room for more. It stays until a shutdown; the one from before stays on."""
    plain = definition("mem", memory=384)
    stand.define(plain.replace("<vcpu>", f"{SLOTS}<vcpu>").replace("</cpu>", CELL))
    stand.nvlane("attach", "--connect", URI, "--yes", "mem", stand.lane("nv", LANES["nv"])).ok()
    before = stand.definition("mem")
    stand.virsh("start", "mem")
    lane = stand.lane("more", LANES["nv"].replace("nv.img", "more.img"))
    given = stand.nvlane("attach", "--json", "--connect", URI, "--yes", "mem", lane).ok().json
    assert given["verified"] is True
    assert {piece["lane"] for piece in given["evidence"]} == {"more"}
    assert stand.nvlane("verify", "--json", "mem").ok().json["verified"] is True
    kept = stand.nvlane("detach", "--yes", "mem", "more")
    assert kept.status == 1
    assert "virsh shutdown mem" in kept.err
    stand.virsh("destroy", "mem")
    stand.nvlane("detach", "--yes", "mem", "more").ok()
    assert stand.definition("mem") == before
    stand.nvlane("detach", "--yes", "mem", "nv").ok()
    assert stand.left() == ""
    stand.virsh("undefine", "mem")


def test_a_session_of_a_persons_own(stand: Room) -> None:
    """Without root: what needs no privilege is given and taken away, and what nvlane keeps is that person's."""
    stand.shell(
        "grep -q ^somebody: /etc/passwd || echo somebody:x:1000:1000::/tmp/somebody:/bin/sh >> /etc/passwd\n"
        "grep -q ^somebody: /etc/group || echo somebody:x:1000: >> /etc/group\n"
        "mkdir -p /tmp/somebody /run/user/1000; chown 1000:1000 /tmp/somebody /run/user/1000; chmod 0755 /run/user"
    )
    person = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    person += ["env", "HOME=/tmp/somebody", "XDG_RUNTIME_DIR=/run/user/1000"]
    nvlane = [*person, "python3", "-m", "nvlane"]
    virsh = [*person, "virsh", "--quiet", "--connect", SESSION]
    stand.write("/tmp/mine.xml", definition("mine", boots=False))
    for name in ("emu", "blk"):
        stand.lane(name, LANES[name].replace(IMAGES, "/tmp/somebody"))
    stand.lane("huge", 'kind = "nvdimm"\nbacking = "hugepages"\nsize = "64MiB"')
    stand.shell("chmod 0644 /tmp/mine.xml /tmp/*.toml")
    for _ in range(3):  # its own words, read back, are what it shows from then on
        stand.run(*virsh, "define", "/tmp/mine.xml").ok()
        before = stand.run(*virsh, "dumpxml", "mine").ok().out
        stand.write("/tmp/mine.xml", before)
    for name in ("emu", "blk"):
        stand.run(*nvlane, "attach", "--connect", SESSION, "--yes", "mine", f"/tmp/{name}.toml").ok()
    refused = stand.run(*nvlane, "attach", "--connect", SESSION, "--yes", "mine", "/tmp/huge.toml")
    assert refused.status == 3, refused.err
    for name in ("emu", "blk"):
        stand.run(*nvlane, "detach", "--yes", "mine", name).ok()
    assert stand.run(*virsh, "dumpxml", "mine").ok().out == before
    assert stand.left() == ""
    stand.run(*virsh, "undefine", "mine").ok()
    stand.shell("kill $(cat /run/user/1000/libvirt/libvirtd.pid) $(cat /run/user/1000/libvirt/virtlogd.pid)")
