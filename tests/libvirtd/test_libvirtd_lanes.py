"""Every lane to a libvirt domain and away again, on real libvirtd: the definition, a run, and what the guest sees."""

from __future__ import annotations

import base64
import json
import time

import pytest
from libvirt_room import COMMAND_DEADLINE, URI, Room
from room_domains import IMAGES, MAKE_AGENT_GUEST, definition
from room_lanes import LANES, MARKS

AGENT_LISTS = json.dumps(
    {"execute": "guest-exec", "arguments": {"path": "ls", "arg": ["/", "/run", "/tmp"], "capture-output": True}}
)
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"


@pytest.mark.parametrize("name", LANES)
def test_into_the_definition_and_out(stand: Room, name: str) -> None:
    """Shown, defined, and taken away: the definition is as it was to the letter, and the host has nothing of it."""
    before = stand.define(definition("cold", boots=False))
    lane = stand.lane(name, LANES[name])
    files = stand.shell(f"ls -l {IMAGES}")
    shown = stand.nvlane("attach", "--connect", URI, "--print-diff", "cold", lane).ok()
    assert shown.out.startswith("--- Original XML\n+++ Altered XML\n")
    assert MARKS[name] in shown.out
    assert stand.definition("cold") == before
    assert stand.left() == ""
    # The yes of somebody who was shown something else, as over ssh when the domain was changed in between.
    other = stand.nvlane("attach", "--connect", URI, "--agreed", "0" * 64, "cold", lane)
    assert (other.status, "was changed since" in other.err, stand.definition("cold") == before) == (1, True, True)
    stand.nvlane("attach", "--connect", URI, "--yes", "cold", lane).ok()
    assert stand.definition("cold") != before
    stand.nvlane("detach", "--connect", URI, "--yes", "cold", name).ok()
    assert stand.definition("cold") == before
    assert stand.shell(f"ls -l {IMAGES}") == files
    assert stand.left() == ""
    stand.virsh("undefine", "cold")


def test_up_verified_and_down(stand: Room) -> None:
    """A spec with `connect`: all lanes at once, the domain started, each proven by its guest; down ends all of it."""
    wanted = [name for name in LANES if not (name == "pmem" and stand.suite == "bookworm")]
    before = stand.define(definition("whole", memory=384, ports=8))
    tables = "".join(f'[[lane]]\nname = "{name}"\n{LANES[name]}\n' for name in wanted)
    stand.write("/tmp/whole.toml", f'[machine]\nname = "whole"\nconnect = "{URI}"\n{tables}')
    up = stand.nvlane("up", "--json", "--yes", "/tmp/whole.toml").ok().json[0]
    assert up["verified"] is True
    assert {piece["lane"] for piece in up["evidence"]} == set(wanted)
    proven = {piece["lane"] for piece in up["evidence"] if "reads back what the guest wrote" in piece["claim"]}
    assert proven == {"emu", "blk", "scsi"}
    assert stand.nvlane("status", "--json", "whole").ok().json["state"] == "up"
    down = stand.nvlane("down", "--json", "--shutdown", "1", "whole").ok().json[0]
    assert down["restored"] is True
    assert [proof["ok"] for proof in down["proofs"]] == [True] * 3
    assert stand.definition("whole") == before
    assert "shut off" in stand.virsh("domstate", "whole")
    assert stand.left() == ""
    stand.shell(f"rm -f {IMAGES}/*.img {IMAGES}/*.qcow2")
    stand.virsh("undefine", "whole")


def test_into_a_running_domain_and_out(stand: Room) -> None:
    """Each lane that QEMU can take out of a running guest: in, proven, out; the domain goes on running all the time."""
    before = stand.define(definition("hot", memory=384, ports=8, extra=SHARED))
    stand.virsh("start", "hot")
    number = stand.virsh("domid", "hot")
    for name in ("emu", "blk", "scsi"):
        lane = stand.lane(name, LANES[name])
        said = stand.nvlane("attach", "--json", "--connect", URI, "--yes", "hot", lane).ok().json
        assert said["verified"] is True, said
    assert stand.nvlane("verify", "--json", "hot").ok().json["verified"] is True
    for name in ("blk", "emu", "scsi"):
        stand.nvlane("detach", "--yes", "hot", name).ok()
    down = stand.nvlane("down", "--json", "hot").ok().json[0]
    assert [proof["ok"] for proof in down["proofs"]] == [True] * 3
    assert stand.definition("hot") == before
    assert stand.virsh("domid", "hot") == number
    assert stand.left() == ""
    stand.shell(f"rm -f {IMAGES}/*.img {IMAGES}/*.qcow2")
    stand.virsh("destroy", "hot")
    stand.virsh("undefine", "hot")


def test_a_running_domain_keeps_persistent_memory(stand: Room) -> None:
    """QEMU lets no NVDIMM go: said with the remedy, nothing changed; after a shutdown it goes."""
    before = stand.define(definition("kept", ports=8))
    stand.nvlane("attach", "--connect", URI, "--yes", "kept", stand.lane("nv", LANES["nv"])).ok()
    given = stand.definition("kept")
    stand.virsh("start", "kept")
    refused = stand.nvlane("detach", "--yes", "kept", "nv")
    assert refused.status == 1
    assert "virsh shutdown kept" in refused.err
    assert stand.definition("kept") == given
    stand.virsh("destroy", "kept")
    stand.nvlane("detach", "--yes", "kept", "nv").ok()
    assert stand.definition("kept") == before
    stand.virsh("undefine", "kept")


def test_a_guest_of_the_users_own_is_asked_through_its_agent(stand: Room) -> None:
    """libvirt holds the agent's channel: nvlane asks it, and leaves nothing in the guest."""
    stand.run("python3", "-c", MAKE_AGENT_GUEST).ok()
    before = stand.define(definition("own", agent=True, extra=SHARED))
    stand.virsh("start", "own")
    for name in ("emu", "blk"):
        said = stand.nvlane("attach", "--json", "--connect", URI, "--yes", "own", stand.lane(name, LANES[name])).ok()
        assert said.json["verified"] is True, said
        stand.nvlane("detach", "--yes", "own", name).ok()
    ran = json.loads(stand.virsh("qemu-agent-command", "own", AGENT_LISTS))
    pid = ran["return"]["pid"]
    asked = json.dumps({"execute": "guest-exec-status", "arguments": {"pid": pid}})
    status: dict[str, object] = {}
    until = time.monotonic() + COMMAND_DEADLINE
    while not status.get("exited"):
        assert time.monotonic() < until
        status = json.loads(stand.virsh("qemu-agent-command", "own", asked))["return"]
    listed = base64.b64decode(str(status.get("out-data", ""))).decode()
    assert "bin" in listed
    assert "nvlane" not in listed
    down = stand.nvlane("down", "--json", "own").ok().json[0]
    assert [proof["ok"] for proof in down["proofs"]] == [True] * 2
    assert stand.definition("own") == before
    assert stand.left() == ""
    stand.shell(f"rm -f {IMAGES}/*.img {IMAGES}/*.qcow2")
    stand.virsh("destroy", "own")
    stand.virsh("undefine", "own")
