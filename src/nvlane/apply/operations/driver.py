"""Moving a PCI function to another driver, and giving it back."""

from __future__ import annotations

from typing import Final

from nvlane.apply.operations.found import FoundFunction
from nvlane.apply.operations.function import driver_of, hand_over, last_words, observe_function, serials_of_drives
from nvlane.apply.operations.operation import PUT_BACK, Keep, Outcome, already, failed, kept
from nvlane.facts.shape import Use, UseKind
from nvlane.facts.usage import read_uses
from nvlane.model.errors import HostError, Refused
from nvlane.model.host import Host
from nvlane.model.pci import PciAddress
from nvlane.plan.step import BindDriver, RestoreDriver

#: Seconds until a drive that was given back shows its namespaces: a controller reset may take CAP.TO (NVMe Base
#: Specification, 3.1.4.1), on real drives some seconds.
_NAMESPACES_DEADLINE: Final = 60.0

#: Seconds after which an open handle is no look in passing.
_PASSING_DEADLINE: Final = 1.5


class BindDriverOperation:
    """The step after which the kernel no longer sees a drive: everything is looked at twice before it."""

    def observe(self, host: Host, step: BindDriver) -> FoundFunction:
        return observe_function(host, step.address)

    def check(self, host: Host, step: BindDriver, found: FoundFunction) -> None:
        if not found.present:
            raise HostError(f"{step.address} is gone", remedy="nvlane devices shows what is there")
        serial = found.drive.serial if found.drive else ""
        for what, planned, now in (
            ("driver", step.expect_driver, found.driver),
            ("driver_override", step.expect_override, found.override),
            ("serial", step.expect_serial, serial if found.driver == "nvme" else step.expect_serial),
            ("IOMMU group", str(step.group), str(found.group)),
        ):
            if planned != now:
                raise HostError(
                    f"{step.address} has changed since it was planned: its {what} was '{planned}' and is '{now}'",
                    remedy="run the same command again: it plans anew",
                )
        uses = _lasting_uses(host, step.address)
        if uses:
            lines = "\n".join(f"  {use.device}: {use.kind} ({use.evidence})" for use in uses)
            raise Refused(
                f"{step.address} is in use:\n{lines}",
                remedy="end each of these uses, then run the same command again",
            )

    def perform(self, host: Host, step: BindDriver, found: FoundFunction, keep: Keep) -> None:  # noqa: ARG002
        self._claim(host, step.address, found)
        said = hand_over(host, step.address, driver=step.driver, override=step.driver)
        now = driver_of(host, step.address)
        if now == step.driver:
            return
        words = "\n".join(part for part in (f"  | {said}" if said else "", last_words(host, step.address)) if part)
        hand_over(host, step.address, driver=found.driver, override=found.override)
        back = driver_of(host, step.address)
        raise HostError(
            f"{step.driver} did not take {step.address} (driver afterwards: '{now}'); it is "
            f"{'back at' if back == found.driver else 'NOT back at'} '{found.driver or 'no driver'}'\n{words}".rstrip(),
            remedy=f"see the kernel's log; without an IOMMU {step.driver} takes no device",
        )

    def _claim(self, host: Host, address: PciAddress, found: FoundFunction) -> None:
        for namespace in found.drive.namespaces if found.drive else ():
            if not host.claim_exclusively(f"/dev/{namespace.name}"):
                raise Refused(
                    f"{address} is in use: the kernel refuses an exclusive open of /dev/{namespace.name} (EBUSY)",
                    remedy="something holds it that shows nowhere else, perhaps in a container: end that first",
                )

    def inverse(self, step: BindDriver, found: FoundFunction, result: None) -> RestoreDriver:  # noqa: ARG002
        return RestoreDriver(
            address=step.address,
            driver=found.driver,
            override=found.override,
            serial=found.drive.serial if found.drive else step.expect_serial,
            taken_by=step.driver,
            identity=found.identity,
            namespaces=len(found.drive.namespaces) if found.drive else 0,
        )


class RestoreDriverReversal:
    """Looks where the function is now, and goes from there; never away from what somebody else did since."""

    def observe(self, host: Host, inverse: RestoreDriver) -> FoundFunction:
        return observe_function(host, inverse.address)

    def resume(self, inverse: RestoreDriver, then: FoundFunction, now: FoundFunction) -> RestoreDriver:  # noqa: ARG002
        return inverse

    def void(self, host: Host, inverse: RestoreDriver) -> Outcome:
        found = observe_function(host, inverse.address)
        if found.present and found.identity == inverse.identity and found.driver != inverse.driver:
            return kept(
                f"the host has been booted since, and that boot gave {inverse.address} to "
                f"'{found.driver or 'no driver'}', not nvlane"
            )
        return already("the host has been booted since, which undid it")

    def perform(self, host: Host, inverse: RestoreDriver, found: FoundFunction) -> Outcome:
        if not found.present or found.identity != inverse.identity or _another(inverse, found):
            return self._gone(host, inverse, found)
        if found.driver == inverse.driver and found.override == inverse.override:
            return self._verified(host, inverse, already("it has its old driver"))
        if found.driver not in ("", inverse.taken_by, inverse.driver):
            return kept(f"somebody else has bound {inverse.address} to {found.driver} since")
        if found.override not in ("", inverse.taken_by, inverse.driver, inverse.override):
            return kept(f"somebody else has set the driver_override of {inverse.address} to {found.override} since")
        if found.driver == inverse.taken_by:
            # Unbinding a function that a process holds open through VFIO would wait in the kernel until it closes it.
            uses = _lasting_uses(host, inverse.address)
            if uses:
                return failed(
                    f"{inverse.address} is in use: " + "; ".join(use.evidence for use in uses),
                    remedy="end that process, then run nvlane restore",
                )
        said = hand_over(host, inverse.address, driver=inverse.driver, override=inverse.override)
        return self._verified(host, inverse, PUT_BACK, said)

    def _verified(self, host: Host, inverse: RestoreDriver, good: Outcome, said: str = "") -> Outcome:
        now = observe_function(host, inverse.address)
        if (now.driver, now.override) != (inverse.driver, inverse.override):
            return failed(
                f"{inverse.address} is at '{now.driver}' with the override '{now.override}', and was at "
                f"'{inverse.driver}' with '{inverse.override}'; {said or last_words(host, inverse.address)}",
                remedy=f"modprobe {inverse.driver or inverse.taken_by}; then run nvlane restore",
            )
        if not (inverse.serial and inverse.driver == "nvme"):
            return good

        def drive_is_back() -> bool:
            drive = observe_function(host, inverse.address).drive
            return (
                drive is not None
                and drive.serial == inverse.serial
                and len(drive.namespaces) >= inverse.namespaces
                and all(host.exists(f"/dev/{namespace.name}") for namespace in drive.namespaces)
            )

        if host.wait_until(drive_is_back, deadline=_NAMESPACES_DEADLINE):
            return good
        return failed(
            f"{inverse.address} is at nvme again, but the drive {inverse.serial} with {inverse.namespaces} namespaces "
            f"did not come back within {_NAMESPACES_DEADLINE:g} s\n{last_words(host, inverse.address)}".rstrip(),
            remedy="see the kernel's log; nvme list shows what came",
        )

    def _gone(self, host: Host, inverse: RestoreDriver, found: FoundFunction) -> Outcome:
        whose = f"the drive {inverse.serial}" if inverse.serial else f"the function {inverse.identity}"
        controller = serials_of_drives(host).get(inverse.serial) if inverse.serial else None
        if controller is not None:
            return already(f"{whose} is now {controller}, under its old driver")
        serial = f", serial {found.drive.serial}" if found.drive and found.drive.serial else ""
        there = f"another device ({found.identity}{serial}) is" if found.present else "nothing is"
        return failed(
            f"{whose} is gone: {there} at {inverse.address}",
            remedy="put it back in and run nvlane restore; or nvlane restore --forget when it will not come back",
        )


def _lasting_uses(host: Host, address: PciAddress) -> tuple[Use, ...]:
    """The uses of a function, without a look in passing: udev and blkid open a drive for moments when it appears."""
    uses = read_uses(host, address)
    if uses and all(use.kind is UseKind.OPEN for use in uses):
        host.wait_until(lambda: not read_uses(host, address), deadline=_PASSING_DEADLINE)
        uses = read_uses(host, address)
    return uses


def _another(inverse: RestoreDriver, found: FoundFunction) -> bool:
    """Whether another drive of the same make stands there now."""
    return bool(inverse.serial and found.drive and found.drive.serial not in ("", inverse.serial))
