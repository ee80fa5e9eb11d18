"""Random specs, made from the same declarations that the reader uses: a new key is in here by itself."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

from nvlane.facts.shape import Facts
from nvlane.model.size import GIB, KIB, MIB
from nvlane.spec.declaration import Declared, declared, lane_classes
from nvlane.spec.document import Spec
from nvlane.spec.key import Kind
from nvlane.spec.machine import Machine
from nvlane.spec.validate import check

#: Keys that nearly every valid table of a class has, so that most of what is drawn is valid.
_USUAL = {
    "Emulated": {"namespaces"},
    "EmulatedNamespace": {"image", "size"},
    "VhostUser": set[str](),
    "Nvdimm": {"size"},
    "Fabrics": {"address"},
}
_ASCII = st.characters(min_codepoint=32, max_codepoint=126)
_SIZES = (4 * KIB, 128 * KIB, MIB, 2 * MIB, 16 * MIB, 100 * MIB, GIB, 3 * GIB, 64 * GIB, 1 << 41, MIB + 512)


def specs(facts: Facts) -> st.SearchStrategy[Spec]:
    """Valid specs for a host: paths and drives are those that it has, and some that it has not."""
    values = _Values(facts)
    lanes = st.lists(
        st.one_of([values.table(lane).filter(_valid_alone) for lane in lane_classes().values()]), max_size=5
    )
    return st.builds(_spec, values.table(Machine), lanes)


def _spec(machine: Machine, lanes: list[Any]) -> Spec:
    """A spec of the lanes that go together; what does not is left out, one after the other."""
    if any(True for _ in check(Spec(machine=machine))):
        machine = Machine(name="vm", memory=machine.memory, cpus=machine.cpus)
    kept: tuple[Any, ...] = ()
    for lane in lanes:
        if not any(True for _ in check(Spec(machine=machine, lanes=(*kept, lane)))):
            kept = (*kept, lane)
    return Spec(machine=machine, lanes=kept)


def _valid_alone(lane: Any) -> bool:
    return not any(True for _ in check(Spec(machine=Machine(name="vm"), lanes=(lane,))))


class _Values:
    """Values for keys, by their declaration."""

    def __init__(self, facts: Facts) -> None:
        serials = [f"serial:{drive.serial}" for drive in facts.drives if drive.serial]
        self._drives = st.sampled_from(
            [*serials, *(str(f.address) for f in facts.functions), "serial:NONE", "0000:fe:00.0", f"{serials[-1]}/vf0"]
        )
        self._tables: dict[type, st.SearchStrategy[Any]] = {}
        self._paths = st.sampled_from([*(path.path for path in facts.paths), "/nowhere/at all,really.raw"])

    def table(self, table: type) -> st.SearchStrategy[Any]:
        if table not in self._tables:
            self._tables[table] = self._table(table)
        return self._tables[table]

    def _table(self, table: type) -> st.SearchStrategy[Any]:
        keys = declared(table)
        values = {key.name: self.value(key) for key in keys.values()}
        always = {key.name for key in keys.values() if key.required} | _USUAL.get(table.__name__, set())
        optional = sorted(values.keys() - always)
        fixed = st.fixed_dictionaries({name: values[name] for name in sorted(always)})
        if not optional:
            return fixed.map(lambda drawn: table(**drawn))
        named = [st.tuples(st.just(name), values[name]) for name in optional]
        some = st.lists(st.one_of(named), max_size=4)
        return st.builds(lambda drawn, more: table(**drawn, **dict(more)), fixed, some)

    def value(self, key: Declared) -> st.SearchStrategy[Any]:
        match key.kind:
            case Kind.SIZE:
                return st.sampled_from([s for s in _SIZES if s >= key.minimum])
            case Kind.CPUS:
                return st.frozensets(st.integers(0, 20), min_size=1, max_size=6)
            case Kind.PATH:
                return self._paths
            case Kind.DRIVE:
                return self._drives
            case Kind.PLAIN:
                pass
        if key.item is not None:
            return st.lists(self._one(key, key.item), min_size=1, max_size=3).map(tuple)
        return self._one(key, key.hint)

    def _one(self, key: Declared, hint: Any) -> st.SearchStrategy[Any]:
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.table(hint)
        if issubclass(hint, StrEnum):
            return st.sampled_from(list(hint))
        if hint is bool:
            return st.booleans()
        if hint is int:
            few = st.integers(key.minimum, min(key.minimum + 8, key.maximum or 1 << 40))
            return few | st.sampled_from([n for n in (512, 4096, key.maximum or 8) if n >= key.minimum])
        if key.pattern:
            return st.from_regex(key.pattern, fullmatch=True, alphabet=_ASCII)
        return st.text(_ASCII, max_size=12)
