"""`nvlane lab`: the hardware-free host. Commands' output on stdout, people's words on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

_name = click.option("--name", default="lab", show_default=True, help="Which lab, when there are several.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.group("lab")
def command() -> None:
    """A whole virtual host with NVMe drives, an IOMMU, an NVDIMM and nested KVM, for trying and testing everything."""


@command.command("up")
@_name
@click.option("--memory", default="6GiB", show_default=True, help="Memory of the virtual host.")
@click.option("--cpus", default=2, show_default=True, help="Processors of the virtual host.")
@click.option("--kernel", type=click.Choice(["cloud", "full"]), default="cloud", show_default=True,
              help="Which of Debian's kernels: cloud starts fastest, full has RDMA and USB.")  # fmt: skip
@_json
def up(name: str, memory: str, cpus: int, kernel: str, as_json: bool) -> None:
    """Start the lab. The first time makes its Debian 13 image, which takes about a minute."""
    from nvlane import lab
    from nvlane.model.size import parse_size

    running = lab.look(name)
    before = running is not None and running.alive
    machine = lab.LabMachine(name=name, memory=int(parse_size(memory)), cpus=cpus, kernel=lab.Kernel(kernel))
    room = lab.up(machine, lab.to_stderr)
    if as_json:
        click.echo(json.dumps(asdict(room.state)))
        return
    state = room.state
    if before:
        lab.to_stderr(f"lab {name!r} runs already ({state.accelerator})")
    else:
        lab.to_stderr(f"lab {name!r} is up after {state.seconds:.1f} s ({state.accelerator}: {state.why})")
    which = "" if name == "lab" else f" --name {name}"
    for line in (f"nvlane lab shell{which}", f"nvlane lab run{which} -- nvlane doctor", f"nvlane lab down{which}"):
        click.echo(f"  {line}", err=True)


@command.command("shell")
@_name
def shell(name: str) -> None:
    """Open a root shell in the lab."""
    from nvlane import lab

    sys.exit(lab.find(name).channel.foreground([]))


@command.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_name
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, words: tuple[str, ...]) -> None:
    """Run a command in the lab, with our stdin, stdout and stderr, and exit with its status."""
    from nvlane import lab

    sys.exit(lab.find(name).channel.foreground(words))


@command.command("down")
@_name
@click.option("--all", "everything", is_flag=True, help="End every lab of this user.")
@_json
def down(name: str, everything: bool, as_json: bool) -> None:
    """End the lab and remove all it had; the cached image stays."""
    from nvlane import lab

    rooms = [room for each in (lab.known() if everything else [name]) if (room := lab.look(each))]
    for room in rooms:
        room.down()
    ended = [room.state.name for room in rooms]
    if as_json:
        click.echo(json.dumps({"ended": ended}))
    else:
        lab.to_stderr(f"ended: {', '.join(ended)}" if ended else f"no lab called {name!r} was there")


@command.command("status")
@_json
def status(as_json: bool) -> None:
    """Say which labs there are, and where their console and monitor are."""
    from nvlane import lab

    rooms = [room for each in lab.known() if (room := lab.look(each))]
    if as_json:
        click.echo(
            json.dumps(
                [{**asdict(room.state), "alive": room.alive, "directory": str(room.directory)} for room in rooms]
            )
        )
        return
    for room in rooms:
        state = "running" if room.alive else "dead (nvlane lab down removes what it left)"
        click.echo(f"{room.state.name}: {state}; {room.state.accelerator}; QEMU {room.state.qemu}")
        click.echo(f"  console log {room.directory}/console.log, QMP socket {room.directory}/qmp.sock")
    if not rooms:
        lab.to_stderr("no lab is there; start one: nvlane lab up")
