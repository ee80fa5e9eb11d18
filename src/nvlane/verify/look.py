"""What the checks look with: the guest, QEMU's monitor, and what was seen of them so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nvlane.model.claim import Evidence, Locator
from nvlane.model.errors import WireError
from nvlane.qemu import inspect
from nvlane.qemu.inspect import Monitor

#: Seconds within which the guest's kernel must have found a device that QEMU has.
DEVICE_DEADLINE = 30.0
#: Seconds between two readings of the inventory.
AGAIN = 0.2

T = TypeVar("T")


class GuestCalls(Protocol):
    """The in-guest probe, by whatever transport."""

    def call(self, method: str, *, deadline: float = ..., **params: Any) -> dict[str, Any]: ...


class NotInGuest(WireError):
    """The guest has no such device (yet)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A pattern that the guest wrote: what the host must read at `host_path` after `down`."""

    lane: int
    host_path: str
    offset: int
    length: int
    sha256: str


@dataclass(slots=True, kw_only=True)
class Look:
    """One verification of one machine. `proofs` gathers what was written."""

    guest: GuestCalls
    monitor: Monitor
    write: bool = True
    proofs: list[Proof] = field(default_factory=list)
    _inventory: Mapping[str, Any] | None = None
    _paths: dict[Locator, str] = field(default_factory=dict)

    def inventory(self) -> Mapping[str, Any]:
        if self._inventory is None:
            self._inventory = self.guest.call("inventory")
        return self._inventory

    def forget(self) -> None:
        """What was read of the guest is no longer so."""
        self._inventory = None

    def mounted(self, place: str) -> bool:
        """Whether something is mounted at a place in the guest (/proc/self/mounts)."""
        table = str(self.guest.call("read_file", path="/proc/self/mounts")["text"])
        return any(line.split()[1] == place for line in table.splitlines())

    def pci_address(self, device_id: str) -> str:
        """Where the guest sees a device: the firmware numbers the buses, so QEMU is asked."""
        address = inspect.guest_pci_address(self.monitor, device_id)
        if address is None:
            raise NotInGuest(f"QEMU shows no PCI device '{device_id}'")
        return str(address)

    def path(self, locator: Locator) -> str:
        """The device node of a disk in the guest, waited for: a kernel that has just booted may still be probing."""
        if locator not in self._paths:
            nvdimm = self._nvdimm(locator.device_id)
            if nvdimm is not None:
                self._paths[locator] = nvdimm
                return nvdimm
            by: dict[str, Any] = {"pci": self.pci_address(locator.device_id)}
            if locator.nsid is not None:
                by["nsid"] = locator.nsid
            if locator.lun is not None:
                by["scsi_lun"] = locator.lun
            if locator.serial:
                by["serial"] = locator.serial
            wait = int(DEVICE_DEADLINE * 1000)
            found = self.guest.call("resolve", deadline=DEVICE_DEADLINE + 10, by=by, deadline_ms=wait)
            self._paths[locator] = str(found["path"])
        return self._paths[locator]

    def _nvdimm(self, device_id: str) -> str | None:
        """The disk of an NVDIMM, which is no PCI device: that of the namespace in the region at its address."""
        devices = inspect.memory_devices(self.monitor)
        device = next((d for d in devices if (d.id, d.kind) == (device_id, "nvdimm")), None)
        if device is None:
            return None
        region = self.one("nvdimm.regions", lambda r: r["resource"] == device.address, deadline=DEVICE_DEADLINE)
        namespace = self.one(
            "nvdimm.namespaces",
            lambda n: n["region"] == region["name"] and bool(n["blockdev"]),
            deadline=DEVICE_DEADLINE,
        )
        return f"/dev/{namespace['blockdev']}"

    def until(self, read: Callable[[], T], good: Callable[[T], bool], *, deadline: float) -> T:
        """Read something of the inventory, anew until it is good or the deadline (seconds) is over; the last reading.

        The guest has no event that says that its kernel is done with probing.
        """
        end = time.monotonic() + deadline
        while True:
            value = read()
            if good(value) or time.monotonic() > end:
                return value
            time.sleep(AGAIN)
            self._inventory = None

    def one(self, list_name: str, fits: Callable[[Mapping[str, Any]], bool], *, deadline: float) -> Mapping[str, Any]:
        """The first entry of a list of the inventory that fits, waited for."""

        def fitting() -> list[Mapping[str, Any]]:
            return [entry for entry in _list(self.inventory(), list_name) if fits(entry)]

        found = self.until(fitting, bool, deadline=deadline)
        if not found:
            raise NotInGuest(f"nothing in the guest's {list_name} fits")
        return found[0]


def _list(inventory: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value: Any = inventory
    for part in name.split("."):
        value = value[part]
    return list(value)


def evidence(lane: int, claim: str, expected: object, found: object) -> Evidence:
    """Evidence that two things are the same."""
    return Evidence(lane=lane, claim=claim, expected=str(expected), found=str(found), ok=expected == found)
