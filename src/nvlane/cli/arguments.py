"""Arguments and options that several verbs have, and what the shell completes for them."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def complete_machines(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from nvlane.apply.linux_reader import LinuxReader
    from nvlane.apply.store import HOST_RUN, Store

    names = Store.of(LinuxReader()).names()
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name != HOST_RUN]


def _lanes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from nvlane.apply.linux_reader import LinuxReader
    from nvlane.apply.store import Store
    from nvlane.cli.service.record import recall

    name = str(context.params.get("machine", ""))
    record = recall(name, Store.of(LinuxReader()).read(name).notes)
    return [
        CompletionItem(lane.name) for lane in (record.present if record else ()) if lane.name.startswith(incomplete)
    ]


spec_file = click.Path(dir_okay=False, allow_dash=True)
specs = click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=spec_file)
machine = click.argument("machine", metavar="MACHINE", shell_complete=complete_machines)
lane = click.argument("lane", metavar="LANE", shell_complete=_lanes)
disk = click.argument("disk", metavar="DISK", shell_complete=_lanes)
no_freeze = click.option("--no-freeze", is_flag=True, help="Do not ask the guest agent to freeze the file systems.")
timeout = click.option(
    "--timeout", type=click.FloatRange(min=1), default=180.0, show_default=True, metavar="SECONDS",
    help="How long the guest may take to boot and answer.",
)  # fmt: skip
facts_file = click.option(
    "--facts", "facts_file", type=click.Path(dir_okay=False), metavar="FILE",
    help="For the host of this file (nvlane doctor --facts).",
)  # fmt: skip
no_verify = click.option("--no-verify", is_flag=True, help="Do not look inside the guest.")
