"""`nvlane target`: vhost-user targets, those of machines and those that stand alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from nvlane.cli.output import Output, common, table

if TYPE_CHECKING:
    from nvlane.cli.service.targets import SeenTarget
    from nvlane.lanes.standalone import WantedTarget
    from nvlane.spec.lane import VhostUser


def _targets(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from nvlane.cli.service.targets import all_targets
    from nvlane.cli.service.world import this_world

    return [CompletionItem(seen.name) for seen in all_targets(this_world()) if seen.name.startswith(incomplete)]


def _methods(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from nvlane.targets.native_module import method_names

    return [CompletionItem(name) for name in method_names() if name.startswith(incomplete)]


_name = click.argument("name", metavar="NAME", shell_complete=_targets)


@click.group()
def target() -> None:
    """Start, look into and replace vhost-user targets. NAME is MACHINE.LANE, or that of a target without a machine.

    \b
    nvlane target start t0 --malloc 1GiB       a disk of memory on /run/nvlane/t0/vhost.sock
    nvlane target rpc t0 bdev_get_iostat       any JSON-RPC method, SPDK's names
    nvlane target restart db1.vhost-user0      a new program, the same guest
    """


@target.command()
@_name
@click.option("--malloc", default="", metavar="SIZE", help="Serve memory of this size.")
@click.option("--null", default="", metavar="SIZE", help="Serve a device of this size that keeps nothing.")
@click.option("--file", type=click.Path(resolve_path=True), metavar="PATH", help="Serve a raw file or block device.")
@click.option("--size", default="", metavar="SIZE", help="Create the file with this size.")
@click.option(
    "--drive", default="", metavar="DRIVE", help="Serve a drive (PCI address or serial:S); it goes to vfio-pci."
)
@click.option(
    "--namespace", type=click.IntRange(min=1), default=1, show_default=True, help="The namespace of the drive."
)
@click.option(
    "--frontend",
    type=click.Choice(["virtio-blk", "virtio-scsi"]),
    default="virtio-blk",
    show_default=True,
    help="What the guest shall see.",
)
@click.option("--block-size", type=click.IntRange(min=0), default=0, help="512 or 4096.")
@click.option("--read-only", is_flag=True, help="The guest cannot write.")
@click.option("--cores", default="", metavar="CPUS", help="A reactor on each of these, as 0-3 or 0xf.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="JSON-RPC calls to begin with, as SPDK's save_config writes them.",
)
@click.option(
    "--allow-path",
    "opens",
    multiple=True,
    type=click.Path(exists=True, resolve_path=True),
    metavar="PATH",
    help="A file or directory that it may be told to open later; may be repeated.",
)
@click.option("--no-confine", is_flag=True, help="Without seccomp and landlock.")
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@common  # fmt: skip
def start(output: Output, name: str, dry_run: bool, **options: Any) -> int:
    """Start a target that stands alone, or one that has ended, with the state that it saved.

    Without a source it serves nothing yet: tell it by `nvlane target rpc`, or by SPDK's scripts on its RPC socket.
    `nvlane target stop` undoes everything.
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.targets import all_targets, plan_target, start_again, start_target
    from nvlane.cli.service.world import this_world
    from nvlane.cli.show import plan_json, plan_text

    world = this_world()
    there = next((seen for seen in all_targets(world) if seen.name == name), None)
    if there is not None:
        _only_ended(there, options)
        with Lines(output) as tell:
            return _show(output, start_again(world, there, tell))
    wanted = _wanted(name, **options)
    if dry_run:
        plan = plan_target(world, wanted)
        output.data(plan_json(name, plan), lambda: plan_text(name, plan, lambda _: ""))
        return 3 if plan.refusals else 0
    with Lines(output) as tell:
        seen = start_target(world, wanted, tell)
    return _show(output, seen)


def _only_ended(seen: SeenTarget, options: dict[str, Any]) -> None:
    from nvlane.model.errors import HostError

    if seen.pid:
        raise HostError(
            f"the target {seen.name} runs already (process {seen.pid})",
            remedy=f"nvlane target restart {seen.name} replaces it",
        )
    if any(options[key] for key in ("malloc", "null", "file", "drive", "config", "cores")):
        raise click.UsageError(
            f"{seen.name} has ended and starts with the state that it saved: say nothing but its name"
        )


def _wanted(
    name: str, *, malloc: str, null: str, file: str | None, size: str, drive: str, namespace: int, frontend: str,
    block_size: int, read_only: bool, cores: str, config: str | None, opens: tuple[str, ...], no_confine: bool,
) -> WantedTarget:  # fmt: skip
    import re

    from nvlane.lanes.standalone import WantedTarget
    from nvlane.model.cpus import parse_cpus
    from nvlane.model.size import parse_size
    from nvlane.spec.drive import normal_drive
    from nvlane.spec.lane import VhostFrontend, VhostUser

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise click.UsageError(f"'{name}' is no name: letters, digits, '.', '_' and '-', 64 at most")
    try:
        on = parse_cpus(cores) if cores else frozenset()
        source: VhostUser | None = None
        if malloc or null or file or drive:
            source = VhostUser(
                malloc=parse_size(malloc) if malloc else 0,
                null=parse_size(null) if null else 0,
                file=file or "",
                size=parse_size(size) if size else 0,
                drive=normal_drive(drive) if drive else "",
                namespace=namespace,
                frontend=VhostFrontend(frontend),
                block_size=block_size,
                read_only=read_only,
                cores=on,
            )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return WantedTarget(name=name, source=source, cores=on, config=config or "", opens=opens, sandbox=not no_confine)


@target.command()
@_name
@common
def stop(output: Output, name: str) -> int:
    """End a target. One that stands alone is undone; that of a machine leaves its guest waiting for `start`."""
    from nvlane.cli.service.targets import find_target, stop_process
    from nvlane.cli.service.world import this_world
    from nvlane.cli.went_down import undo_runs

    world = this_world()
    seen = find_target(world, name)
    if seen.machine is None:
        return undo_runs(output, world, (seen.run.name,), shutdown=0)
    stop_process(world, seen)
    output.say(f"{name} has ended; its guest waits until nvlane target start {name}")
    return _show(output, find_target(world, name), quiet=True)


@target.command()
@_name
@common
def restart(output: Output, name: str) -> int:
    """Replace a target, dead or alive, by today's program with the state that it saved.

    Whatever was in flight is done by the new one: the guest sees a pause and no error. The old one ends first (SIGTERM:
    it completes what it has); then QEMU connects to the new one, which is waited for.
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.targets import find_target, start_again
    from nvlane.cli.service.world import this_world

    world = this_world()
    with Lines(output) as tell:
        seen = start_again(world, find_target(world, name), tell)
    return _show(output, seen)


@target.command("status")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=_targets)
@common
def target_status(output: Output, name: str | None) -> None:
    """Show the targets that there are; with NAME, its reactors, bdevs and controllers, as it says itself."""
    from nvlane.cli.service.target_view import view_of
    from nvlane.cli.service.targets import all_targets, find_target
    from nvlane.cli.service.world import this_world
    from nvlane.cli.target_words import details

    world = this_world()
    if name is not None:
        view = view_of(find_target(world, name))
        output.data(view, lambda: details(view))
        return
    every = all_targets(world)
    output.data([_as_json(seen) for seen in every], lambda: _overview(every))
    if not every:
        output.say("there is no target; nvlane target start makes one, and a machine with a vhost-user lane has one")


def _show(output: Output, seen: SeenTarget, *, quiet: bool = False) -> int:
    value = _as_json(seen)
    if output.json:
        output.data(value, str)
    elif not quiet:
        output.say(f"{seen.name} runs (process {seen.pid})")
        for what, path in value["sockets"].items():
            output.say(f"  {what:6} {path}")
    return 0


def _as_json(seen: SeenTarget) -> dict[str, Any]:
    from nvlane.targets.table import ENGINES

    return {
        "target": seen.name,
        "engine": seen.step.engine,
        "machine": seen.machine.name if seen.machine else None,
        "running": bool(seen.pid),
        "pid": seen.pid or None,
        "serves": _serves(seen),
        "sockets": dict(ENGINES[seen.step.engine].launch(seen.step).sockets),
        "directory": seen.step.directory,
    }


def _serves(seen: SeenTarget) -> str:
    from nvlane.model.size import format_size

    export = seen.step.export
    if export is None:
        return "what it was told to"
    if export.address is not None:
        what = f"drive {export.address}, namespace {export.namespace}"
    elif export.path:
        what = export.path
    else:
        what = f"malloc {format_size(export.malloc)}" if export.malloc else f"null {format_size(export.null)}"
    return f"{what} as {export.frontend}"


def _overview(every: tuple[SeenTarget, ...]) -> str:
    if not every:
        return ""
    rows = [[seen.name, seen.step.engine, str(seen.pid or "ended"), _serves(seen)] for seen in every]
    return table(["TARGET", "ENGINE", "PROCESS", "SERVES"], rows)


@target.command(context_settings={"ignore_unknown_options": True})
@_name
@click.argument("method", metavar="METHOD", shell_complete=_methods)
@click.argument("parameters", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, metavar="SECONDS",
              help="How long the answer may take.")  # fmt: skip
@common
def rpc(output: Output, name: str, method: str, parameters: tuple[str, ...], timeout: float) -> None:
    """Call a JSON-RPC method and print its result as JSON. NAME may be the path of an RPC socket, SPDK's too.

    A VALUE is JSON where it is some ('3', 'true', '["a"]', '"3"'), else text; one argument that is a JSON object gives
    all parameters.

    \b
    nvlane target rpc t0 bdev_get_bdevs name=disk0
    nvlane target rpc t0 bdev_malloc_create '{"name": "m1", "num_blocks": 2048, "block_size": 512}'
    nvlane target rpc /var/tmp/spdk.sock rpc_get_methods
    """
    import json

    from nvlane.cli.service.target_view import call

    result = call(name, method, _parameters(parameters), timeout)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    output.data(result, lambda: text)


def _parameters(words: tuple[str, ...]) -> dict[str, Any]:
    import json

    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            value = json.loads(words[0])
        except ValueError as error:
            raise click.UsageError(f"the parameters are no JSON: {error}") from None
        return dict(value)
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise click.UsageError(f"'{word}' is no KEY=VALUE, and no JSON object that gives all parameters")
        if key in found:
            raise click.UsageError(f"'{key}' is given twice")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


@target.command()
@_name
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="This many looks; left out, until interrupted.")
@common  # fmt: skip
def top(output: Output, name: str, interval: float, count: int | None) -> None:
    """Show what a target does: reactors, bdevs and controllers, as a table that changes on a terminal.

    Otherwise one look (--count more) is printed; with --json each as one line.
    """
    from nvlane.cli.target_top import show_top

    show_top(output, name, interval=interval, count=count)
