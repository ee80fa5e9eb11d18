"""Which lanes can be measured on one storage, and as what tables."""

from __future__ import annotations

import pytest

from nvlane.bench.contender import Storage, at, chosen, machine_text, storage_of, table
from nvlane.model.errors import SpecError
from nvlane.spec.document import Spec
from nvlane.spec.lane import Emulated, Passthrough, VhostUser
from nvlane.spec.reader import parse_lane, parse_spec

MACHINE = '[machine]\nname = "m"\nmemory = "512MiB"\ncpus = 3\n'


def spec(*lanes: str) -> Spec:
    return parse_spec(MACHINE + "".join(f"[[lane]]\n{lane}\n" for lane in lanes), "m.toml", "/specs")


DRIVE = spec('kind = "userspace"\ndrive = "serial:X1"\nnamespace = 2\nfrontend = "virtio-scsi"')
FILE = spec('kind = "vhost-user"\nfile = "disk.raw"')


def test_a_drive_can_have_every_kind_and_what_is_written_stays() -> None:
    lanes = chosen(DRIVE, ())
    assert [lane.name for lane in lanes] == ["emulated", "userspace", "vhost-user", "passthrough"]
    assert lanes[1].frontend == "virtio-scsi"  # type: ignore[union-attr]
    assert isinstance(lanes[2], VhostUser) and (lanes[2].drive, lanes[2].namespace) == ("serial:X1", 2)
    assert isinstance(lanes[3], Passthrough) and lanes[3].drive == "serial:X1"


def test_a_file_can_have_two() -> None:
    assert storage_of(FILE) == Storage(path="/specs/disk.raw")
    assert [lane.name for lane in chosen(FILE, ())] == ["emulated", "vhost-user"]
    assert isinstance(chosen(FILE, ())[0], Emulated)
    with pytest.raises(SpecError, match=r"there is no lane 'passthrough' for /specs/disk\.raw"):
        chosen(FILE, ("passthrough",))
    with pytest.raises(SpecError, match="does not take an NVDIMM out of a guest that runs"):
        chosen(FILE, ("nvdimm",))


def test_lanes_are_chosen_in_the_order_of_the_list() -> None:
    assert [lane.name for lane in chosen(DRIVE, ("passthrough", "emulated"))] == ["passthrough", "emulated"]
    with pytest.raises(SpecError, match="did you mean 'vhost-user'"):
        chosen(DRIVE, ("vhost-usr",))


@pytest.mark.parametrize(
    ("lanes", "words"),
    [
        ((), "names none"),
        (
            ('kind = "passthrough"\ndrive = "serial:A"', 'kind = "passthrough"\ndrive = "serial:B"'),
            "serial:A and serial:B",
        ),
        (('kind = "nvdimm"\nbacking = "memory"\nsize = "64MiB"',), "another kind of lane"),
        (('kind = "vhost-user"\nmalloc = "64MiB"',), "another kind of lane"),
        (('kind = "emulated"\nnamespaces = [{ image = "d.qcow2", size = "1GiB" }]',), "another kind of lane"),
    ],
)
def test_one_storage_or_an_error(lanes: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        storage_of(spec(*lanes))


def test_tables_are_read_back_as_what_they_were() -> None:
    for lane in chosen(DRIVE, ()):
        now = at(lane, "/dev/nvme3n2", 4096)
        assert parse_lane(table(now), "lane.toml", "/specs") == now


def test_a_file_is_an_image_and_a_block_device_is_one() -> None:
    by_path = {
        path: chosen(spec(f'kind = "vhost-user"\nfile = "{path}"'), ("emulated",))[0] for path in ("a.raw", "/dev/sdx")
    }
    names = [by_path[path].namespaces[0] for path in by_path]  # type: ignore[union-attr]
    assert [(name.image, name.format, name.device) for name in names] == [
        ("/specs/a.raw", "raw", ""),
        ("", "", "/dev/sdx"),
    ]


def test_an_emulated_lane_has_the_node_that_the_drive_has_now() -> None:
    (lane,) = chosen(DRIVE, ("emulated",))
    now = at(lane, "/dev/nvme3n2", 4096)
    assert isinstance(now, Emulated)
    assert (now.namespaces[0].device, now.namespaces[0].block_size) == ("/dev/nvme3n2", 4096)
    written = chosen(
        spec('kind = "emulated"\nwrite_proof = true\nnamespaces = [{ device = "/dev/sdx" }]'), ("emulated",)
    )
    assert at(written[0], "/dev/sdx") == at(written[0], "")
    assert not at(written[0], "").write_proof


def test_the_machine_shares_its_memory_where_a_target_needs_it() -> None:
    lanes = chosen(DRIVE, ())
    machine = parse_spec(machine_text(DRIVE, lanes), "m.toml", "/specs").machine
    assert (machine.name, machine.cpus, machine.memory_backing) == ("m", 3, "memfd")
    alone = parse_spec(machine_text(DRIVE, lanes[:2]), "m.toml", "/specs").machine
    assert alone.memory_backing == "auto"
