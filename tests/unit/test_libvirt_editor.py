"""Edits of a domain's XML in its bytes, and their undoing."""

from __future__ import annotations

import pytest

from nvlane.libvirt.editor import Editor
from nvlane.libvirt.markup import node
from nvlane.libvirt.record import Record
from nvlane.libvirt.removal import remove_all

SHAPES = (
    "<domain type='kvm'><name>x</name><memory unit='GiB'>4</memory><devices></devices></domain>",
    """<domain type='kvm'>
  <name>x</name>
  <memory unit='GiB'>4</memory>
  <devices/>
  <cpu mode='x' />
</domain>
""",
    """<domain type='kvm'>
\t<name>x</name>
\t<memory unit="GiB">4</memory>
\t<devices>
\t</devices>
</domain>""".replace("\n", "\r\n"),
    """<!-- a -->
<domain
  type='kvm'
>
  <name>x</name>
  <memory>4194304</memory><!-- b -->
  <devices>
   <!-- c -->
  </devices>
</domain>
<!-- d -->
""",
)


def _edit(xml: str, lane: str, standing: tuple[Record, ...] = ()) -> Record:
    editor = Editor(xml, standing)
    editor.container("", "memoryBacking", after=("memory",))
    editor.setting("memoryBacking", node("access", mode="shared"))
    editor.raise_amount("", "memory", 1024, 0)
    editor.raise_amount("", "maxMemory", 1024, 4194304, after=("name",))
    editor.raise_count("maxMemory", "slots", 1)
    editor.insert("devices", [node("disk", node("alias", name=f"ua-{lane}"), type="file")])
    prefix = editor.qemu_prefix()
    line = editor.container("", "qemu:commandline")
    editor.insert(line, [node(f"{prefix}:arg", value="-device"), node(f"{prefix}:arg", value=f'{{"id":"{lane}"}}')])
    return Record(lane=lane, before=xml, after=editor.xml, additions=tuple(editor.additions))


@pytest.mark.parametrize("xml", SHAPES)
@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "a", "c"), ("b", "c", "a")])
def test_any_order_of_taking_gives_the_bytes_back(xml: str, order: tuple[str, ...]) -> None:
    standing: dict[str, Record] = {}
    current = xml
    for lane in ("a", "b", "c"):
        standing[lane] = _edit(current, lane, tuple(standing.values()))
        current = standing[lane].after
    for lane in order:
        record = standing.pop(lane)
        current, notes = remove_all(current, record, tuple(standing.values()))
        assert notes == ()
        for other in standing:
            assert f"ua-{other}" in current
            assert f'{{"id":"{other}"}}' in current
        assert f"ua-{lane}'" not in current
    assert current == xml


def test_nested_fragments_are_indented_as_the_neighbours_are() -> None:
    record = _edit(SHAPES[1], "a")
    assert "  <devices>\n    <disk type='file'>\n      <alias name='ua-a'/>\n    </disk>\n  </devices>" in record.after
    assert "  <memoryBacking>\n    <access mode='shared'/>\n  </memoryBacking>" in record.after
    assert "<memory unit='KiB'>4195328</memory>" in record.after
