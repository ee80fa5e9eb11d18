"""What is written to, and what is not: decided on facts of a host."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nvlane.bench.contender import Storage
from nvlane.cli.main import cli
from nvlane.cli.output import Output
from nvlane.cli.service.bench_plan import node_and_blocks, raise_for_data
from nvlane.facts.shape import Content, Drive, Facts, Fingerprint, Namespace
from nvlane.model.codec import decode
from nvlane.model.errors import Refused, SpecError

FACTS = Path(__file__).parent.parent / "cases" / "facts" / "server.json"
RANGES = ((0, 4096), (8192, 4096))
ZEROS = hashlib.sha256(bytes(8192)).hexdigest()


@pytest.fixture
def drive() -> Drive:
    """A drive of the server, blank as far as facts tell."""
    read = decode(Facts, json.loads(FACTS.read_text()))
    first = next(drive for drive in read.drives if drive.serial and drive.controller and drive.namespaces)
    return dataclasses.replace(first, contents=(), uses=())


def facts_with(drive: Drive, sha256: str = ZEROS) -> Facts:
    read = decode(Facts, json.loads(FACTS.read_text()))
    prints = tuple(
        Fingerprint(of=f"{drive.address}:{namespace.nsid}", ranges=RANGES, sha256=sha256)
        for namespace in drive.namespaces
    )
    others = tuple(other for other in read.drives if other.address != drive.address)
    return dataclasses.replace(read, drives=(drive, *others), fingerprints=prints)


def test_a_blank_drive_is_written_to(drive: Drive) -> None:
    raise_for_data(facts_with(drive), Storage(drive=f"serial:{drive.serial}"), "")


def test_a_signature_bytes_and_the_unread_all_count_as_data(drive: Drive) -> None:
    storage = Storage(drive=f"serial:{drive.serial}")
    signed = dataclasses.replace(drive, contents=(Content(device=drive.namespaces[0].name, what="ext4"),))
    unread = dataclasses.replace(facts_with(drive), fingerprints=())
    for facts, words in (
        (facts_with(signed), "ext4"),
        (facts_with(drive, "0" * 64), "it is not empty"),
        (unread, "could not be read"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            raise_for_data(facts, storage, "")
        assert f"--writes-to serial:{drive.serial}" in caught.value.remedy


def test_the_drive_named_again_by_whatever_name_is_written_to(drive: Drive) -> None:
    facts, storage = facts_with(drive, "0" * 64), Storage(drive=f"serial:{drive.serial}")
    raise_for_data(facts, storage, f"serial:{drive.serial}")
    raise_for_data(facts, storage, str(drive.address))
    for other in ("serial:ANOTHER", "rubbish", "0000:ff:1f.7"):
        with pytest.raises(Refused, match="is another"):
            raise_for_data(facts, storage, other)


def test_a_file_is_empty_when_it_is_not_there_or_all_zeros(drive: Drive) -> None:
    facts, storage = facts_with(drive), Storage(path="/srv/disk.raw")
    raise_for_data(facts, storage, "")
    for sha256, empty in ((ZEROS, True), ("0" * 64, False)):
        told = dataclasses.replace(facts, fingerprints=(Fingerprint(of="/srv/disk.raw", ranges=RANGES, sha256=sha256),))
        if empty:
            raise_for_data(told, storage, "")
            continue
        with pytest.raises(Refused, match="--writes-to names"):
            raise_for_data(told, storage, "/srv/other.raw")
        raise_for_data(told, storage, "/srv/disk.raw")


def test_the_node_is_that_of_now(drive: Drive) -> None:
    space = Namespace(name="nvme7n2", nsid=2, size=1 << 30, block_size=4096)
    facts = facts_with(dataclasses.replace(drive, namespaces=(*drive.namespaces, space)))
    storage = Storage(drive=f"serial:{drive.serial}", namespace=2)
    assert node_and_blocks(facts, storage) == ("/dev/nvme7n2", 4096)
    with pytest.raises(Refused, match="namespace 9"):
        node_and_blocks(facts, dataclasses.replace(storage, namespace=9))
    with pytest.raises(Refused, match="no drive has the serial"):
        node_and_blocks(facts, Storage(drive="serial:NOTHERE"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a SPEC"),
        (("x.toml", "--compare", "a", "b"), "takes two results and no SPEC"),
        (("x.toml", "--jobs", "randwrite", "--read-only"), "leaves none"),
    ],
)
def test_words_that_do_not_fit_together(words: tuple[str, ...], said: str) -> None:
    ended = CliRunner().invoke(cli, ("bench", *words), obj=Output())
    assert ended.exit_code == 2 and said in ended.output


def test_a_job_that_is_none_is_named() -> None:
    ended = CliRunner().invoke(cli, ("bench", "x.toml", "--jobs", "randread-4k-7"), obj=Output())
    assert isinstance(ended.exception, SpecError) and "randread-4k-8" in str(ended.exception)
