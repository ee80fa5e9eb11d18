"""`nvlane doctor`: what this host can do, lane by lane, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common

if TYPE_CHECKING:
    from nvlane.cli.service.survey import Trial
    from nvlane.facts.shape import Facts


@click.command()
@click.argument("specs", metavar="[SPEC]...", nargs=-1, type=arguments.spec_file)
@click.option("--facts", "facts_file", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="Save what was read of this host, for `nvlane plan --facts FILE` on any other.")  # fmt: skip
@click.option("--qemu", default="qemu-system-x86_64", show_default=True, help="The QEMU binary to ask.")
@click.option("--no-kvm-probe", is_flag=True, help="Do not boot a kernel to see whether KVM works.")
@common
def doctor(output: Output, specs: tuple[str, ...], facts_file: str | None, qemu: str, no_kvm_probe: bool) -> None:
    """Read this host and say which lanes it can do; for those that it cannot, why not and what would help.

    Changes nothing. Run it as root to see every drive and who uses it. With SPEC the facts tell of the files that it
    names, too, which `nvlane plan --facts` on another machine cannot see.
    """
    from nvlane.cli.service.survey import survey
    from nvlane.cli.service.world import read_host, this_world
    from nvlane.cli.spec_files import read_files
    from nvlane.model.codec import encode

    facts = read_host(
        this_world(),
        qemu=qemu,
        probe_kvm=not no_kvm_probe,
        specs=[file.spec() for file in read_files(specs)],
        probe_guest=facts_file is not None,
    )
    trials = survey(facts)
    if facts_file is not None:
        _save(output, facts, facts_file)
        if facts_file == "-":
            return
    output.data(
        {"lanes": [encode(trial) for trial in trials], "unknown": list(facts.unknown), "kvm": encode(facts.kvm)},
        lambda: _text(facts, trials),
    )


def _save(output: Output, facts: Facts, path: str) -> None:
    import json

    from nvlane.model.codec import encode
    from nvlane.model.errors import HostError

    text = json.dumps(encode(facts), indent=1, ensure_ascii=False) + "\n"
    try:
        with click.open_file(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", remedy="name a file that you can write") from error
    output.say(f"the facts are in {path}; nvlane plan SPEC --facts {path} plans against them on any machine")


def _text(facts: Facts, trials: tuple[Trial, ...]) -> str:
    from nvlane.cli.service.refused import refusal_text

    lines = [*_host_lines(facts), ""]
    said: set[tuple[str, str]] = set()
    for trial in trials:
        what = f"{trial.lane:<12} {trial.variant}"
        where = f": {', '.join(trial.drives)}" if trial.drives else ""
        lines.append(f"{'✓' if trial.possible else '✗'} {what}{where}")
        for refusal in trial.refusals:
            again = (refusal.code, refusal.reason) in said
            said.add((refusal.code, refusal.reason))
            words = f"  {refusal.reason}  [{refusal.code}]" if again else refusal_text(refusal, lambda _: "")
            lines += [f"  {line}" for line in words.splitlines()]
    lines += [f"not known: {line}" for line in facts.unknown]
    return "\n".join(lines)


def _host_lines(facts: Facts) -> list[str]:
    from nvlane.model.size import format_size

    qemu, daemon, target = facts.qemu, facts.storage_daemon, facts.target
    pools = [
        f"{pool.free} of {pool.total} free of {format_size(pool.page_size)} on node {pool.node}"
        for pool in facts.hugepages
        if pool.total
    ]
    locked = "unlimited" if facts.limits.memlock is None else format_size(facts.limits.memlock)
    return [
        f"host       {facts.hostname}, Linux {facts.kernel}, {facts.architecture}, {len(facts.cpus)} processors, "
        f"{len(facts.nodes) or 1} NUMA node{'s' if len(facts.nodes) > 1 else ''}, "
        f"{'root' if facts.uid == 0 else f'user {facts.uid}'}",
        f"KVM        {'works' if facts.kvm.usable else 'no: ' + facts.kvm.reason}",
        f"IOMMU      {facts.iommu or 'none'}",
        f"QEMU       {_binary(qemu.path, qemu.version, qemu.error) if qemu else 'none'}",
        f"target     {_binary(target.path, target.version, target.error) if target else 'none'}",
        f"daemon     {_binary(daemon.path, daemon.version, daemon.error) if daemon else 'none'}",
        f"drives     {len(facts.drives)} NVMe ({sum(bool(drive.uses) for drive in facts.drives)} in use)",
        f"hugepages  {'; '.join(pools) or 'none reserved'}",
        f"locked     {locked}{', may be raised' if facts.limits.can_raise else ''}",
    ]


def _binary(path: str, version: str, error: str) -> str:
    return f"{path}: {error}" if error else f"{path} {version}"
