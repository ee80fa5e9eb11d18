"""`nvlane status`: the machines that are up, and what is left to undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.output import Output, common, table

if TYPE_CHECKING:
    from nvlane.cli.service.record import MachineRecord, WorkRecord
    from nvlane.cli.service.runs import Seen


@click.command()
@click.argument("machine", metavar="[MACHINE]", required=False, shell_complete=arguments.complete_machines)
@domain_options.on_host
@common
def status(output: Output, machine: str | None, connect: str | None) -> int:
    """Show the machines that are up; with MACHINE, its lanes, evidence, sockets, and what `down` will undo."""
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.service.runs import look_at
    from nvlane.cli.service.world import this_world
    from nvlane.model.errors import HostError

    if (there := elsewhere(output, connect)) is not None:
        return there.run("status", "--", *([machine] if machine else []))
    world = this_world()
    if machine is not None:
        if not world.store.has(machine):
            known = ", ".join(world.store.names()) or "none"
            raise HostError(f"there is no run '{machine}'", remedy=f"there are: {known}")
        seen = look_at(world, machine)
        output.data(_json(seen), lambda: _details(seen))
        return 0
    every = [look_at(world, name) for name in world.store.names()]
    output.data([_json(seen) for seen in every], lambda: _overview(every))
    if not every:
        output.say("nothing is up, and nothing is left to undo")
    for seen in every:
        if seen.state == "left":
            output.say(f"{seen.run.name}: {seen.why}; nvlane restore {seen.run.name} puts the host back")
    return 0


def _overview(every: list[Seen]) -> str:
    if not every:
        return ""
    rows = []
    for seen in every:
        record = seen.record
        lanes = ", ".join(lane.name for lane in record.present) if record else ""
        rows.append([seen.run.name, str(seen.state), _since(seen), lanes, _verified(seen)])
    return table(["RUN", "STATE", "SINCE", "LANES", "VERIFIED"], rows)


def _details(seen: Seen) -> str:
    from nvlane.cli.service.disks import disks_of

    run, record = seen.run, seen.record
    lines = [f"{run.name}: {seen.state}{': ' + seen.why if seen.why else ''}"]
    if run.begin is not None:
        lines.append(f"  since    {_since(seen)}")
    if seen.pid:
        lines.append(f"  process  {seen.pid}")
    if record is not None:
        runtime, place = record.machine.runtime, record.domain
        if place is not None:
            lines += [f"  spec     {record.source}", f"  domain   {place.name} ({place.uuid}) of {place.uri}"]
        lines += (
            []
            if place is not None
            else [
                f"  spec     {record.source}",
                f"  machine  {record.machine.machine_type}, {record.machine.accelerator}, {record.machine.cpus} vCPUs",
                f"  QMP      {record.qmp}",
                f"  console  {record.console}   (socat -,raw,echo=0 UNIX:{record.console})",
                f"  logs     {runtime}/qemu.log, {runtime}/console.log",
            ]
        )
        for lane in record.present:
            lines.append(f"  lane     {lane.name} ({lane.kind})")
            lines += [
                f"    {'✓' if piece.ok else '✗'} {piece.claim}: {piece.found}"
                for piece in record.evidence
                if piece.lane == lane.number
            ]
        lines += [f"  disk     {disk.name}: {disk.path} ({disk.format})" for disk in disks_of(record)]
        lines += [f"  job      {work.id}{': ' if work.disk else ''}{work.disk}{_way(work)}" for work in record.work]
    lines += [f"  to undo  {entry.step.describe()}" for entry in reversed(run.outstanding)]
    return "\n".join(lines)


def _way(work: WorkRecord) -> str:
    of = f" of {work.disk}" if work.disk else ""
    return f"{of}, kept the same" if work.left else f"{of}, cut short: nvlane restore puts it right"


def _json(seen: Seen) -> dict[str, Any]:
    from nvlane.cli.service.record import as_json

    begin = seen.run.begin
    return {
        "run": seen.run.name,
        "state": str(seen.state),
        "why": seen.why,
        "pid": seen.pid or None,
        "since": begin.time if begin else None,
        "host": begin.hostname if begin else None,
        "to_undo": [entry.step.describe() for entry in reversed(seen.run.outstanding)],
        **(as_json(seen.record) if seen.record else {}),
        **(_disks(seen.record) if seen.record else {}),
    }


def _disks(record: MachineRecord) -> dict[str, Any]:
    from nvlane.cli.service.disks import disks_of

    return {
        "disks": [
            {"name": disk.name, "path": disk.path, "format": disk.format, "node": disk.node}
            for disk in disks_of(record)
        ],
        "work": [{"id": work.id, "disk": work.disk, "left": work.left} for work in record.work],
    }


def _since(seen: Seen) -> str:
    import time

    begin = seen.run.begin
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begin.time)) if begin else ""


def _verified(seen: Seen) -> str:
    evidence = seen.record.evidence if seen.record else ()
    if not evidence:
        return "not yet" if seen.record else ""
    wrong = sum(not piece.ok for piece in evidence)
    return f"{wrong} of {len(evidence)} claims are not true" if wrong else f"{len(evidence)} claims"
