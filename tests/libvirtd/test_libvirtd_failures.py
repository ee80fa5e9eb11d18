"""What goes wrong around libvirt: nothing half-done is left, and the message says what happened."""

from __future__ import annotations

import errno
import os
import pty
import select
import subprocess

import pytest
from libvirt_room import COMMAND_DEADLINE, URI, Room
from room_domains import IMAGES, definition
from room_lanes import LANES

QUESTION = "Define 'vm' with the changed XML? (y/n)"


class Asked:
    """`nvlane attach` at its question, on a terminal."""

    def __init__(self, stand: Room, lane: str) -> None:
        ours, theirs = pty.openpty()
        self._terminal = ours
        command = stand.command("python3", "-m", "nvlane", "attach", "--connect", URI, "vm", lane)
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=stand.environment(), close_fds=True
        )
        os.close(theirs)
        self.said = ""
        while QUESTION not in self.said:
            part = self._read()
            assert part, self.said
            self.said += part

    def _read(self) -> str:
        """What it says next; '' when it has closed the terminal."""
        assert select.select([self._terminal], [], [], COMMAND_DEADLINE)[0], f"it says no more:\n{self.said}"
        try:
            return os.read(self._terminal, 65536).decode(errors="replace")
        except OSError as error:
            assert error.errno == errno.EIO  # how Linux says that the other end of a terminal is closed
            return ""

    def answer(self, word: str) -> tuple[int, str]:
        os.write(self._terminal, f"{word}\n".encode())
        said = ""
        while part := self._read():
            said += part
        os.close(self._terminal)
        return self._process.wait(COMMAND_DEADLINE), said.replace("\r\n", "\n")


@pytest.fixture
def before(stand: Room) -> str:
    """The definition of a domain 'vm' before each test."""
    if "vm" in stand.virsh("list", "--all", "--name").split():
        stand.virsh("undefine", "vm")
    return stand.define(definition("vm", boots=False))


def untouched(stand: Room) -> None:
    assert stand.left() == ""
    assert "emu.qcow2" not in stand.shell(f"ls {IMAGES}")


def test_asked_and_answered(stand: Room, before: str) -> None:
    lane = stand.lane("emu", LANES["emu"])
    asked = Asked(stand, lane)
    assert '"serial":"12345"' in asked.said
    status, said = asked.answer("n")
    assert (status, "nothing was changed" in said) == (1, True)
    assert stand.definition("vm") == before
    untouched(stand)
    assert Asked(stand, lane).answer("y")[0] == 0
    assert stand.definition("vm") != before
    stand.nvlane("detach", "--yes", "vm", "emu").ok()
    assert stand.definition("vm") == before
    untouched(stand)


def test_without_a_terminal_nothing_is_asked_and_nothing_done(stand: Room, before: str) -> None:
    ran = stand.nvlane("attach", "--connect", URI, "vm", stand.lane("emu", LANES["emu"]))
    assert ran.status == 1
    assert "no terminal to ask on" in ran.err
    assert "add --yes" in ran.err
    assert stand.definition("vm") == before
    untouched(stand)


def test_a_daemon_that_dies(stand: Room, before: str) -> None:
    asked = Asked(stand, stand.lane("emu", LANES["emu"]))
    stand.kill_daemon("libvirtd")
    status, said = asked.answer("y")
    assert status == 1
    assert "is the daemon up?" in said
    untouched(stand)
    stand.start_daemon("libvirtd")
    assert stand.definition("vm") == before


def test_a_daemon_that_restarts_between_the_verbs(stand: Room, before: str) -> None:
    stand.nvlane("attach", "--connect", URI, "--yes", "vm", stand.lane("emu", LANES["emu"])).ok()
    stand.kill_daemon("libvirtd")
    assert stand.nvlane("status", "--json", "vm").ok().json["state"] == "not reached"
    assert stand.nvlane("detach", "--yes", "vm", "emu").status == 1
    stand.start_daemon("libvirtd")
    assert stand.nvlane("status", "--json", "vm").ok().json["state"] == "shut off"
    stand.nvlane("detach", "--yes", "vm", "emu").ok()
    assert stand.definition("vm") == before
    untouched(stand)


def test_a_domain_that_is_undefined_at_the_question(stand: Room, before: str) -> None:  # noqa: ARG001
    asked = Asked(stand, stand.lane("emu", LANES["emu"]))
    stand.virsh("undefine", "vm")
    status, said = asked.answer("y")
    assert status == 1
    assert "the domain vm was undefined meanwhile" in said
    assert "vm" not in stand.virsh("list", "--all", "--name").split()
    untouched(stand)


def test_a_domain_that_is_undefined_later(stand: Room, before: str) -> None:  # noqa: ARG001
    stand.nvlane("attach", "--connect", URI, "--yes", "vm", stand.lane("emu", LANES["emu"])).ok()
    stand.virsh("undefine", "vm")
    assert "undefined meanwhile" in stand.nvlane("status", "vm").ok().out
    stand.nvlane("restore", "vm").ok()
    assert "vm" not in stand.virsh("list", "--all", "--name").split()
    untouched(stand)


def test_a_definition_that_libvirt_refuses(stand: Room, before: str) -> None:
    """Its directory cannot be written, so libvirt itself says no. (/nvlane is mounted read-only.)"""
    stand.shell("cd /etc/libvirt; mv qemu away; ln -s /nvlane qemu")
    ran = stand.nvlane("attach", "--connect", URI, "--yes", "vm", stand.lane("emu", LANES["emu"]))
    stand.shell("cd /etc/libvirt; rm qemu; mv away qemu")
    assert ran.status == 1
    assert "libvirt refuses the definition" in ran.err
    assert "Read-only file system" in ran.err
    assert stand.definition("vm") == before
    untouched(stand)


def test_a_domain_that_somebody_else_changes(stand: Room, before: str) -> None:
    """At the question: nothing is defined over it. Later: theirs stays, ours goes."""
    asked = Asked(stand, stand.lane("emu", LANES["emu"]))
    stand.virsh("desc", "--config", "vm", "--title", "--new-desc", "theirs")
    status, said = asked.answer("y")
    assert status == 1
    assert "somebody else changed the domain vm" in said
    untouched(stand)
    stand.nvlane("attach", "--connect", URI, "--yes", "vm", stand.lane("emu", LANES["emu"])).ok()
    stand.virsh("desc", "--config", "vm", "--title", "--new-desc", "theirs again")
    stand.nvlane("detach", "--yes", "vm", "emu").ok()
    now = stand.definition("vm")
    assert "<title>theirs again</title>" in now
    assert now.replace("  <title>theirs again</title>\n", "") == before
    untouched(stand)


def test_nvlane_killed_at_any_record(stand: Room, before: str) -> None:
    """SIGKILL right after the nth record; restore puts all of it back."""
    lane = stand.lane("emu", LANES["emu"])
    for record in range(1, 30):
        ran = stand.nvlane(
            "attach", "--connect", URI, "--yes", "vm", lane, env={"NVLANE_DIE_AFTER_RECORD": str(record)}
        )
        if ran.status == 0:
            break
        stand.nvlane("restore", "vm").ok()
        assert stand.definition("vm") == before, f"record {record}"
        untouched(stand)
    stand.nvlane("down", "vm").ok()
    assert stand.definition("vm") == before
    untouched(stand)


def test_a_directory_that_is_closed_to_qemu(stand: Room, before: str) -> None:
    stand.shell("mkdir -m 0700 -p /root/closed")
    lane = stand.lane("emu", LANES["emu"].replace(IMAGES, "/root/closed"))
    ran = stand.nvlane("attach", "--connect", URI, "--yes", "vm", lane)
    assert ran.status == 3
    assert "path-closed" in ran.err
    assert "chmod o+x /root/closed" in ran.err
    assert stand.definition("vm") == before
    assert stand.left() == ""
