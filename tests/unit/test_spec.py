"""The spec reader beyond single cases: files, several specs, published pages, and input that nobody thought of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvlane.model.errors import SpecError
from nvlane.spec.declaration import declared, lane_classes, tables
from nvlane.spec.document import Spec
from nvlane.spec.lane import Emulated, Userspace
from nvlane.spec.outline import nearest_line, outline
from nvlane.spec.reader import parse_lane, parse_spec, read_spec, read_specs
from nvlane.spec.reference import reference
from nvlane.spec.schema import json_schema

ROOT = Path(__file__).parent.parent.parent
MACHINE = '[machine]\nname = "vm"\n'


def _write(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def test_paths_are_relative_to_the_spec(tmp_path: Path) -> None:
    text = MACHINE + 'image = "disks/a.qcow2"\n'
    spec = read_spec(_write(tmp_path, "a.toml", text))
    assert spec.machine.image == f"{tmp_path}/disks/a.qcow2"
    assert parse_spec(MACHINE + 'image = "/var/a.img"\n', "a", "/specs").machine.image == "/var/a.img"


def test_drives_are_normalised() -> None:
    text = MACHINE + "".join(
        f'[[lane]]\nkind = "userspace"\ndrive = "{drive}"\n' for drive in ("04:00.0", "serial:S1 ", "serial:S2/vf00")
    )
    lanes = parse_spec(text, "a", "/").lanes
    drives = [lane.drive for lane in lanes if isinstance(lane, Userspace)]
    assert drives == ["0000:04:00.0", "serial:S1", "serial:S2/vf0"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name = '\xc3('"])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"[machine]\n" + content)
    with pytest.raises(SpecError, match=r"a\.toml:2: is not UTF-8"):
        read_spec(str(path))


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_spec(str(tmp_path / "none.toml"))
    with pytest.raises(SpecError, match="Is a directory"):
        read_spec(str(tmp_path))
    with pytest.raises(SpecError, match="longer than"):
        read_spec("/dev/zero")


def test_two_machines_with_one_name(tmp_path: Path) -> None:
    paths = [_write(tmp_path, name, MACHINE) for name in ("a.toml", "b.toml")]
    with pytest.raises(SpecError, match=r"b\.toml: machine\.name: .*/a\.toml has a machine 'vm' too"):
        read_specs(paths)


def test_one_drive_for_two_machines(tmp_path: Path) -> None:
    lane = '[[lane]]\nkind = "passthrough"\ndrive = "serial:S1{}"\n'
    one = _write(tmp_path, "a.toml", MACHINE + lane.format("/vf1"))
    two = _write(tmp_path, "b.toml", '[machine]\nname = "other"\n' + lane.format(""))
    other_function = _write(tmp_path, "c.toml", '[machine]\nname = "third"\n' + lane.format("/vf2"))
    with pytest.raises(SpecError, match=r"b\.toml: lane\[0\]\.drive: .*gives serial:S1 away too"):
        read_specs([one, two])
    assert len(read_specs([one, other_function])) == 2


def test_a_lane_alone() -> None:
    lane = parse_lane('[[lane]]\nkind = "emulated"\nnamespaces = [{ image = "a.img" }]\n', "l.toml", "/d")
    assert isinstance(lane, Emulated)
    assert lane.namespaces[0].image == "/d/a.img"
    with pytest.raises(SpecError, match="unknown key 'machine'"):
        parse_lane(MACHINE, "l.toml", "/d")
    with pytest.raises(SpecError, match=r"has 0 \[\[lane\]\] tables"):
        parse_lane("", "l.toml", "/d")
    with pytest.raises(SpecError, match=r"l\.toml:1: lane\[0\]: has no namespace"):
        parse_lane('[[lane]]\nkind = "emulated"\n', "l.toml", "/d")


def test_lines_of_places() -> None:
    text = '# c\n[machine]\nname = """a\nb"""\n[[lane]]\nx = [\n 1, # [\n { y = "}" },\n]\n[lane."z.z"]\nq.r = 1\n'
    lines = outline(text)
    assert lines["machine.name"] == 3
    assert lines["lane[0]"] == 5
    assert lines["lane[0].x[1].y"] == 8
    assert lines["lane[0].z.z.q.r"] == 11
    assert nearest_line(lines, "lane[0].x[1].missing") == 8
    assert nearest_line(lines, "nowhere") == 0


def test_published_pages_are_what_the_declarations_say() -> None:
    pages = {
        ROOT / "docs" / "spec.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        ROOT / "docs" / "spec.md": reference(),
    }
    for path, text in pages.items():
        if os.environ.get("NVLANE_REGENERATE") == "1":
            path.write_text(text)
        assert path.read_text() == text, f"{path.name} is stale: NVLANE_REGENERATE=1 writes it"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_every_key_is_documented() -> None:
    for table in tables().values():
        for key in declared(table).values():
            assert key.words.endswith("."), f"{table.__name__}.{key.name}"


def test_examples_are_good_specs() -> None:
    examples = sorted((ROOT / "examples").glob("*.toml"))
    assert examples
    for example in examples:
        read_spec(str(example))


_NAMES = sorted({name for table in tables().values() for name in declared(table)} | {"kind", "lane", "machine", "x"})
_WORDS = [*lane_classes(), "4GiB", "0-3", "0x3", "04:00.0", "serial:S1", "a.img", "virtio-blk", "fsdax", "", "~", "\0"]
_SCALARS = st.one_of(
    st.sampled_from(_WORDS), st.text(max_size=8), st.integers(), st.booleans(), st.floats(), st.none(), st.dates()
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=8,
)


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value).encode("utf-8", "replace").decode()
        case dict():
            return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case _:
            return str(value)


def _only_spec_errors(text: str) -> Spec | None:
    try:
        return parse_spec(text, "x.toml", "/")
    except SpecError as error:
        assert error.message
        return None


@given(st.text())
def test_no_text_gives_a_traceback(text: str) -> None:
    _only_spec_errors(text)


@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6))
def test_no_machine_gives_a_traceback(table: dict[str, Any]) -> None:
    _only_spec_errors(
        MACHINE + "".join(f"{name} = {_toml(value)}\n" for name, value in table.items() if name != "name")
    )


@given(st.sampled_from(sorted(lane_classes())), st.data())
def test_no_lane_gives_a_traceback(kind: str, data: st.DataObject) -> None:
    keys = sorted(declared(lane_classes()[kind]))
    table = data.draw(st.dictionaries(st.sampled_from(keys), _VALUES, max_size=6))
    body = "".join(f"{name} = {_toml(value)}\n" for name, value in table.items())
    spec = _only_spec_errors(f'{MACHINE}[[lane]]\nkind = "{kind}"\n{body}')
    if spec is not None:
        assert kind == spec.lanes[0].KIND


@given(st.binary(max_size=200))
def test_outline_never_raises(data: bytes) -> None:
    outline(data.decode("utf-8", "replace"))
