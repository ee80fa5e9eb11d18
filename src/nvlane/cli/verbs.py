"""The table of verbs. `nvlane --help` is made from it alone, so that it imports no verb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """Where a verb is ('module:attribute'), and its one line of help."""

    name: str
    place: str
    words: str


def _verb(name: str, words: str, place: str = "") -> Verb:
    return Verb(name=name, place=place or f"nvlane.cli.{name}:{name}", words=words)


#: Heading to verbs, in the order in which people need them.
SECTIONS: Final[dict[str, tuple[Verb, ...]]] = {
    "Look (changes nothing)": (
        _verb("doctor", "What this host can do, lane by lane, and why not."),
        _verb("advise", "Which lane suits what is needed here, and why; what each lane can do."),
        _verb("devices", "The NVMe drives here, and who uses each."),
        _verb("plan", "What `up` would do: refusals, steps, the QEMU command."),
        _verb("status", "The machines that are up, and what is left to undo."),
    ),
    "Run": (
        _verb("up", "Bring a machine up with its lanes, and verify them."),
        _verb("attach", "Plug one more lane into a running machine."),
        _verb("detach", "Unplug a lane from a running machine."),
        _verb("verify", "Check the lanes' claims from inside the guest."),
        _verb("down", "Stop a machine and put the host back."),
    ),
    "Measure": (
        _verb("bench", "The lanes compared on this machine, by fio in the guest."),
        _verb("report", "One page of a measurement, with tables and plots."),
    ),
    "Disks of a running machine": (
        _verb("snapshot", "Keep what a disk holds now, and go on in a new image."),
        _verb("mirror", "Copy a disk to another place, and go on there."),
        _verb("backup", "Copy what a disk holds now: all, or what changed."),
        _verb("jobs", "The copies that a machine is at, and their end."),
        _verb("throttle", "Limit what a disk may do, and show the limits."),
        _verb("resize", "Give a disk another size."),
        _verb("migrate", "Move the machine to a second QEMU."),
    ),
    "The host": (
        _verb("restore", "After a crash: put back what an interrupted run changed."),
        _verb("target", "The vhost-user targets: start, stop, status, restart, rpc, top."),
        _verb("fabrics", "NVMe over Fabrics: export, unexport, discover, connect, disconnect, list."),
        _verb("host", "Hugepages and drivers without a machine: setup, reset, status."),
    ),
    "Without hardware": (
        _verb("lab", "A virtual host with drives, an IOMMU and nested KVM.", "nvlane.cli.lab:command"),
        _verb("demo", "Every lane, proven in the lab, in one table."),
    ),
    "About nvlane": (
        _verb("schema", "The JSON schema of the spec."),
        _verb("man", "The manual page."),
        _verb("completion", "Shell completion for bash, zsh or fish."),
    ),
}

VERBS: Final[dict[str, Verb]] = {verb.name: verb for verbs in SECTIONS.values() for verb in verbs}
