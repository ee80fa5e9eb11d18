"""What a running QEMU says of migration: how far one is, and what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.qemu.inspect import Monitor


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationNow:
    """`status` as MigrationStatus of qapi/migration.json names it ('': none was asked for); bytes of memory that are
    left and in all; what a machine is told on why it cannot; the guest's pause in ms."""

    status: str
    remaining: int = 0
    total: int = 0
    downtime: int = 0
    blocked: tuple[str, ...] = ()
    error: str = ""


def migration(monitor: Monitor) -> MigrationNow:
    found = monitor.execute("query-migrate")
    ram = found.get("ram", {})
    return MigrationNow(
        status=str(found.get("status", "")),
        remaining=int(ram.get("remaining", 0)),
        total=int(ram.get("total", 0)),
        downtime=int(found.get("downtime", 0)),
        blocked=tuple(str(reason) for reason in found.get("blocked-reasons", ())),
        error=str(found.get("error-desc", "")),
    )
