"""`nvlane fabrics`: both ends of NVMe over Fabrics without a machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from nvlane.cli.output import Output, common, table

if TYPE_CHECKING:
    from nvlane.cli.service.fabrics import FabricsState
    from nvlane.plan.export import WantedExport

_TRANSPORTS = ("tcp", "rdma", "fc", "loop")
_transport = click.option(
    "-t", "--transport", type=click.Choice(_TRANSPORTS), default="tcp", show_default=True, help="What carries it."
)
_port = click.option(
    "-p", "--port", type=click.IntRange(1, 65535), default=4420, show_default=True, help="The port, for tcp and rdma."
)
_file = click.Path(resolve_path=True)
_secret_file = click.Path(resolve_path=True)
_dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be done.")


@click.group()
def fabrics() -> None:
    """Export drives and files to other hosts, and connect to those of others. NAME is one of your choice.

    \b
    there   nvlane fabrics export disks --drive serial:S4EV --address 10.0.0.2 --allow HOSTNQN
    here    nvlane fabrics discover --address 10.0.0.2
            nvlane fabrics connect disks --address 10.0.0.2 --nqn NQN
            nvlane fabrics disconnect disks
    there   nvlane fabrics unexport disks
    """


@fabrics.command()
@click.argument("name")
@click.option("--file", "files", multiple=True, type=_file, metavar="PATH", help="A raw file or block device; repeat.")
@click.option("--size", default="", metavar="SIZE", help="Create the file with this size.")
@click.option("--drive", default="", metavar="DRIVE", help="A drive (PCI address or serial:S), which the kernel keeps.")
@click.option("--namespace", type=click.IntRange(min=1), help="Only this namespace of the drive.")
@_transport
@click.option("-a", "--address", "addresses", multiple=True, help="Where to listen; repeated, one port for each.")
@_port
@click.option("--nqn", default="", help="The subsystem's NQN; left out, one made of NAME and this host's.")
@click.option("--allow", "hosts", multiple=True, metavar="HOSTNQN", help="A host that may connect; repeat.")
@click.option("--allow-any", "any_host", is_flag=True, help="Every host may connect.")
@click.option("--secret", type=_secret_file, metavar="FILE", help="The hosts' DH-HMAC-CHAP key.")
@click.option("--controller-secret", type=_secret_file, metavar="FILE", help="The Target's own, for both directions.")
@click.option("--tls", is_flag=True, help="Only with TLS (tcp; needs tlshd).")
@click.option("--tls-key", type=_secret_file, metavar="FILE", help="The hosts' TLS key; implies --tls.")
@_dry_run
@common
def export(output: Output, name: str, dry_run: bool, **options: Any) -> int:
    """Make this host a Target: files, block devices or a drive, through the kernel's nvmet.

    What is in use here is refused. `nvlane fabrics unexport NAME` undoes everything.
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.fabrics import export as export_it
    from nvlane.cli.service.fabrics import plan_export
    from nvlane.cli.service.world import this_world
    from nvlane.cli.show import plan_json, plan_text

    world, wanted = this_world(), _wanted(name, **options)
    if dry_run:
        plan = plan_export(world, wanted)[2]
        output.data(plan_json(name, plan), lambda: plan_text(name, plan, lambda _: ""))
        return 3 if plan.refusals else 0
    with Lines(output) as tell:
        told = export_it(world, wanted, tell)
    output.data(told, lambda: told["nqn"])
    for ns in told["namespaces"]:
        output.say(f"  namespace {ns['nsid']}: {ns['source']}")
    return 0


def _wanted(
    name: str, *, files: tuple[str, ...], size: str, drive: str, namespace: int | None, transport: str,
    addresses: tuple[str, ...], port: int, nqn: str, hosts: tuple[str, ...], any_host: bool, secret: str | None,
    controller_secret: str | None, tls: bool, tls_key: str | None,
) -> WantedExport:  # fmt: skip
    from nvlane.cli.service.fabrics import paths_of
    from nvlane.model.fabrics import Transport, service_of
    from nvlane.model.size import parse_size
    from nvlane.plan.export import WantedExport
    from nvlane.spec.drive import normal_drive

    by = Transport(transport)
    try:
        return WantedExport(
            name=_good(name),
            nqn=nqn,
            paths=paths_of(by, addresses, service_of(by, port), ""),
            files=files,
            size=parse_size(size) if size else 0,
            drive=normal_drive(drive) if drive else "",
            namespace=namespace or 0,
            hosts=hosts,
            any_host=any_host,
            secret=secret or "",
            controller_secret=controller_secret or "",
            tls=tls or bool(tls_key),
            tls_key=tls_key or "",
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _good(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise click.UsageError(f"'{name}' is no name: letters, digits, '.', '_' and '-', 64 at most")
    return name


@fabrics.command()
@click.argument("name")
@common
def unexport(output: Output, name: str) -> int:
    """End an export: its port is closed first, then the rest goes, newest first."""
    return _end(output, name, "export")


@fabrics.command()
@click.argument("name")
@common
def disconnect(output: Output, name: str) -> int:
    """End a connection. Refused (5) while something on this host uses its namespaces."""
    return _end(output, name, "connection")


def _end(output: Output, name: str, kind: str) -> int:
    from nvlane.cli.service.fabrics import named
    from nvlane.cli.service.world import this_world
    from nvlane.cli.went_down import undo_runs

    world = this_world()
    return undo_runs(output, world, (named(world, name, kind),), shutdown=0)


@fabrics.command()
@_transport
@click.option("-a", "--address", default="", help="The Target's address.")
@_port
@click.option("--host-address", default="", help="The address here (fc needs it).")
@click.option("--host-nqn", default="", help="Ask as this host; left out, /etc/nvme/hostnqn.")
@common
def discover(output: Output, transport: str, address: str, port: int, host_address: str, host_nqn: str) -> None:
    """Show what a Target offers to this host."""
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.fabrics import discovered
    from nvlane.cli.service.world import this_world
    from nvlane.model.fabrics import FabricPath, Transport, service_of

    by = Transport(transport)
    path = FabricPath(transport=by, address=address, service=service_of(by, port), host_address=host_address)
    with Lines(output) as tell:
        found = discovered(this_world(), path, host_nqn, tell)
    keys = ("subnqn", "trtype", "traddr", "trsvcid")
    rows = [[entry.get(key, "") for key in keys] for entry in found]
    output.data(found, lambda: table(["NQN", "TRANSPORT", "ADDRESS", "PORT"], rows))


@fabrics.command()
@click.argument("name")
@click.option("--nqn", required=True, help="The subsystem.")
@_transport
@click.option("-a", "--address", "addresses", multiple=True, help="The Target; repeated, a path for each (multipath).")
@_port
@click.option("--host-address", default="", help="The address here (fc needs it).")
@click.option("--host-nqn", default="", help="Come as this host; left out, /etc/nvme/hostnqn.")
@click.option("--secret", type=_secret_file, metavar="FILE", help="This host's DH-HMAC-CHAP key.")
@click.option("--controller-secret", type=_secret_file, metavar="FILE", help="The Target's, to see who it is.")
@click.option("--tls", is_flag=True, help="With TLS (tcp; needs tlshd).")
@click.option("--tls-key", type=_secret_file, metavar="FILE", help="This host's TLS key there; implies --tls.")
@click.option("--controller-loss", type=click.IntRange(min=-1), default=-1, show_default=True, metavar="SECONDS",
              help="Give a lost connection up after this; -1: never.")  # fmt: skip
@click.option("--reconnect-delay", type=click.IntRange(min=1), default=2, show_default=True, metavar="SECONDS",
              help="From one try to the next.")  # fmt: skip
@click.option("--fast-io-fail", type=click.IntRange(min=-1), default=-1, show_default=True, metavar="SECONDS",
              help="Fail I/O while the connection is lost for this long; -1: I/O waits.")  # fmt: skip
@_dry_run
@common
def connect(
    output: Output, name: str, nqn: str, transport: str, addresses: tuple[str, ...], port: int, host_address: str,
    secret: str | None, controller_secret: str | None, tls: bool, tls_key: str | None, dry_run: bool, **options: Any,
) -> int:  # fmt: skip
    """Connect this host to a subsystem. `nvlane fabrics disconnect NAME` undoes it."""
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.fabrics import connect as connect_it
    from nvlane.cli.service.fabrics import paths_of, plan_connect
    from nvlane.cli.service.world import this_world
    from nvlane.cli.show import plan_json, plan_text
    from nvlane.lanes.connection import WantedConnection
    from nvlane.model.fabrics import NQN, Transport, service_of

    if not NQN.fullmatch(nqn):
        raise click.UsageError(f"'{nqn}' is no NQN: nvlane fabrics discover shows them")
    by = Transport(transport)
    wanted = WantedConnection(
        nqn=nqn,
        paths=paths_of(by, addresses, service_of(by, port), host_address),
        secret=secret or "",
        controller_secret=controller_secret or "",
        tls=tls or bool(tls_key),
        tls_key=tls_key or "",
        **options,
    )
    world = this_world()
    if dry_run:
        plan = plan_connect(world, wanted)
        output.data(plan_json(name, plan), lambda: plan_text(name, plan, lambda _: ""))
        return 3 if plan.refusals else 0
    with Lines(output) as tell:
        told = connect_it(world, _good(name), wanted, tell)
    output.data(told, lambda: "\n".join(ns["device"] for ns in told["namespaces"]))
    return 0


@fabrics.command("list")
@common
def list_all(output: Output) -> None:
    """Show what this host exports and what it is connected to, whoever did it."""
    from nvlane.cli.service.fabrics import state, state_json
    from nvlane.cli.service.world import this_world

    seen = state(this_world())
    output.data(state_json(seen), lambda: _text(seen))
    if not seen.seen.subsystems and not seen.seen.connections:
        output.say("nothing is exported, and nothing is connected")


def _text(state: FabricsState) -> str:
    from nvlane.cli.service.fabrics import state_json
    from nvlane.model.size import format_size

    value = state_json(state)
    parts = []
    exports = [
        [
            "\n".join(one["runs"]) or "(not nvlane)",
            one["nqn"],
            "\n".join(f"{p['transport']} {p['address']} {p['service']}".strip() for p in one["paths"]),
            "any" if one["any_host"] else "\n".join(one["hosts"]),
            "\n".join(f"{ns['nsid']}: {ns['source']}" for ns in one["namespaces"]),
        ]
        for one in value["exports"]
    ]
    if exports:
        parts.append(table(["EXPORT", "NQN", "PORTS", "HOSTS", "NAMESPACES"], exports))
    connections = [
        [
            one["controller"],
            one["nqn"],
            f"{one['transport']} {one['address']} {one['service']}".strip(),
            one["state"],
            "\n".join(f"{ns['device']} ({format_size(ns['size'])})" for ns in one["namespaces"]),
        ]
        for one in value["connections"]
    ]
    if connections:
        parts.append(table(["CONNECTION", "NQN", "PATH", "STATE", "NAMESPACES"], connections))
    return "\n\n".join(parts)
