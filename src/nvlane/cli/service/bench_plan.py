"""What `bench` is going to do, found out before anything is changed: lanes, their refusals, and what would be lost."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from nvlane import __version__
from nvlane.bench import contender
from nvlane.bench.contender import Storage
from nvlane.bench.jobs import Job
from nvlane.bench.result import FORMAT, Contender, Result, Series, Where
from nvlane.cli.service.refused import raise_if_refused
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.up import SpecFile
from nvlane.cli.service.world import World, read_for, read_paths_of
from nvlane.facts.locate import Located, NotLocated, find_drive
from nvlane.facts.shape import Facts, Namespace
from nvlane.lanes.compose import make_plan
from nvlane.model.codec import encode
from nvlane.model.errors import Refused, SpecError
from nvlane.spec.document import Spec
from nvlane.spec.lane import Lane
from nvlane.targets.table import ENGINES


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says. `lanes` empty: all that can have the storage and that this host can do."""

    lanes: tuple[str, ...]
    jobs: tuple[Job, ...]
    rounds: int
    milliseconds: int
    writes_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A measurement that may begin. `machine_text` is the machine without lanes (TOML); `own_guest`: it boots nvlane's
    probe guest."""

    name: str
    source: str
    directory: str
    machine_text: str
    own_guest: bool
    storage: Storage
    lanes: tuple[Lane, ...]
    result: Result


def prepare(world: World, file: SpecFile, asked: Asked, tell: Tell) -> Prepared:
    """Everything checked, nothing changed. Raises SpecError, and Refused for what is unsafe or impossible here."""
    spec = file.spec()
    if spec.machine.connect:
        message = "is a libvirt domain's: nvlane bench starts the machine itself"
        raise SpecError(message, place="machine.connect", source=spec.source, remedy="leave it out of the spec")
    storage, lanes = contender.storage_of(spec), contender.chosen(spec, asked.lanes)
    tell.phase("reading the host")
    facts = read_for(world, spec)
    _raise_for_absent(facts, storage)
    node, block_size = node_and_blocks(facts, storage)
    if any(job.pattern.writes for job in asked.jobs):
        raise_for_data(facts, storage, asked.writes_to)
    lanes, now = _possible(world, spec, asked, lanes, node, block_size, tell)
    names = [lane.name for lane in lanes]
    told = [contender.table(contender.at(lane, storage.words)) for lane in lanes]
    series = Series(
        machine=contender.machine_text(spec, lanes),
        storage=storage.words,
        lanes=tuple(
            Contender(name=name, kind=str(lane.KIND), table=text)
            for name, lane, text in zip(names, lanes, told, strict=True)
        ),
        jobs=asked.jobs,
        rounds=asked.rounds,
        milliseconds=asked.milliseconds,
    )
    return Prepared(
        name=spec.machine.name,
        source=file.path,
        directory=file.directory,
        machine_text=series.machine,
        own_guest=not spec.machine.image and not spec.machine.kernel,
        storage=storage,
        lanes=lanes,
        result=Result(
            format=FORMAT, nvlane=__version__, series=series, where=_where(world, spec, now, storage), facts=encode(now)
        ),
    )


def _possible(
    world: World, spec: Spec, asked: Asked, lanes: Sequence[Lane], node: str, block_size: int, tell: Tell
) -> tuple[tuple[Lane, ...], Facts]:
    """The lanes that this host can do, each planned alone, and the facts that tell of all. A lane that was named and
    cannot be done is refused; of all, those that cannot are left out, and that is said."""
    here = tuple(contender.at(lane, node, block_size) for lane in lanes)
    facts = read_for(world, dataclasses.replace(spec, lanes=here))
    good = []
    for lane, now in zip(lanes, here, strict=True):
        alone = dataclasses.replace(spec, lanes=(now,))
        plan = make_plan(alone, facts, ENGINES)
        if plan.refusals and not asked.lanes:
            tell.phase(f"{lane.name} is left out: {plan.refusals[0].reason}")
            continue
        raise_if_refused(plan, spec.machine.name, alone.lane_name)
        good.append(lane)
    if not good:
        raise Refused(
            f"this host can give {spec.machine.name} its storage by no lane",
            remedy="nvlane doctor says what is missing",
        )
    return tuple(good), facts


def node_of(world: World, storage: Storage) -> tuple[str, int]:
    """(the block node or file, its block size) of a storage as it is on the host now."""
    return node_and_blocks(read_paths_of(world, ()), storage) if storage.drive else (storage.path, 512)


def node_and_blocks(facts: Facts, storage: Storage) -> tuple[str, int]:
    """The same, in a picture of the host."""
    if not storage.drive:
        return storage.path, 512
    namespace = _namespace(facts, storage)
    return f"/dev/{namespace.name}", namespace.block_size


def _namespace(facts: Facts, storage: Storage) -> Namespace:
    found = _drive(facts, storage.drive)
    for namespace in found.drive.namespaces:
        if namespace.nsid == storage.namespace and found.drive.controller:
            return namespace
    raise Refused(
        f"the kernel does not show namespace {storage.namespace} of {storage.drive}",
        remedy="give the drive back to the kernel's nvme driver: nvlane devices shows who has it",
    )


def _drive(facts: Facts, text: str) -> Located:
    found = find_drive(facts, text)
    if isinstance(found, NotLocated):
        raise Refused(found.reason, remedy=found.remedy)
    return found


def _raise_for_absent(facts: Facts, storage: Storage) -> None:
    """Every lane would make the file anew, and a new file is holes: none of them would be measured."""
    if storage.path and facts.path(storage.path).kind not in ("file", "block"):
        raise Refused(
            f"{storage.path} is not there", remedy=f"make it, with all its blocks: fallocate -l 4GiB {storage.path}"
        )


def raise_for_data(facts: Facts, storage: Storage, named: str) -> None:
    """Writing jobs destroy what is on the storage: a person has to name it once more."""
    held = _held(facts, storage)
    if not held or (named and _same(facts, storage, named)):
        return
    other = f" (--writes-to names {named}, which is another)" if named else ""
    raise Refused(
        f"{storage.words} holds data ({held}), and jobs that write would destroy it{other}",
        remedy=f"name it again if it may go: --writes-to {storage.words}; or measure with --read-only",
    )


def _held(facts: Facts, storage: Storage) -> str:
    """What is on the storage, '' for nothing: signatures, or bytes in the ranges that were read of it."""
    if not storage.drive:
        print_ = facts.fingerprint(storage.path)
        return "" if print_ is None or _is_zero(print_.ranges, print_.sha256) else "it is not empty"
    drive = _drive(facts, storage.drive).drive
    named = ", ".join(content.what for content in drive.contents)
    for namespace in drive.namespaces:
        print_ = facts.fingerprint(f"{drive.address}:{namespace.nsid}")
        if print_ is None:
            return named or "its content could not be read"
        if not _is_zero(print_.ranges, print_.sha256):
            return named or "it is not empty"
    return named


def _is_zero(ranges: Sequence[tuple[int, int]], sha256: str) -> bool:
    return hashlib.sha256(bytes(sum(length for _, length in ranges))).hexdigest() == sha256


def _same(facts: Facts, storage: Storage, named: str) -> bool:
    if not storage.drive:
        return named == storage.path
    try:
        other = find_drive(facts, named)
    except ValueError:
        return False
    return isinstance(other, Located) and other.function.address == _drive(facts, storage.drive).function.address


def _where(world: World, spec: Spec, facts: Facts, storage: Storage) -> Where:
    plan = make_plan(dataclasses.replace(spec, lanes=()), facts, ENGINES)
    accelerator = plan.machine.accelerator if plan.machine is not None else ""
    words, caveats = storage.words, []
    if accelerator == "tcg":
        caveats.append("the guest's processors were emulated (TCG)")
    if world.host.environment("NVLANE_LAB") == "1":
        caveats.append("it was made in nvlane's lab, whose drives, IOMMU and processors are emulated")
    if storage.drive:
        drive = _drive(facts, storage.drive).drive
        words = f"{drive.model} {drive.serial}".strip() or words
        if drive.model.startswith("QEMU"):
            caveats.append("the drive is a model of QEMU's, on a file of another host")
    return Where(
        hostname=facts.hostname,
        kernel=facts.kernel,
        processor=_processor(world),
        cpus=len(facts.cpus),
        qemu=facts.qemu.version if facts.qemu else "",
        accelerator=accelerator,
        storage=words,
        guest="",
        caveats=tuple(caveats),
    )


def _processor(world: World) -> str:
    """The model's name, which only some architectures give (proc_cpuinfo(5))."""
    for line in world.host.read_text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""
