"""The lanes in the order in which they suit a wish on one host, and why each stands where it stands.

Pure: each way is written down as a spec, read, and planned against the facts; what the plan refuses, this host cannot
do. The rest is the matrix. Order: what is asked and refused by the way; then what nobody has proven; then conditions;
then, with `latency`, the order under dense I/O; then how many other things it keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nvlane.advise.cell import Answer, Cell, Gives, Operation, Way
from nvlane.advise.draft import Draft, Unfit, drafts, room_for
from nvlane.advise.matrix import cell
from nvlane.advise.ways import ORDER_IS, WAYS
from nvlane.advise.wish import Need, Wish, meaning
from nvlane.facts.shape import Facts
from nvlane.lanes.compose import make_plan
from nvlane.plan.engine import Engines
from nvlane.plan.plan import Refusal

#: Ways of which no order under dense I/O is known stand behind those of which one is.
_NO_ORDER: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """How a way answers one need."""

    need: Need
    cell: Cell

    @property
    def lost(self) -> bool:
        return self.cell.answer is Answer.NO

    @property
    def unproven(self) -> bool:
        return self.cell.answer is Answer.UNPROVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way on this host. `refusals` why it cannot be done here; `crowd` why not for so many machines; `loses` what
    it has not of all that was not asked for; `behind` why it does not stand one place higher."""

    way: Way
    met: tuple[Met, ...]
    loses: tuple[Operation, ...]
    costs: tuple[Operation, ...]
    draft: Draft | None = None
    refusals: tuple[Refusal, ...] = ()
    crowd: str = ""
    behind: str = ""

    @property
    def possible(self) -> bool:
        return self.draft is not None and not self.refusals

    @property
    def fits(self) -> bool:
        """All that was asked is shown to be there, some of it perhaps with a condition."""
        return self.possible and not self.crowd and not any(met.lost or met.unproven for met in self.met)


def advise(wish: Wish, facts: Facts, engines: Engines) -> tuple[Choice, ...]:
    """Every way, the one that suits best first; those that this host cannot do come last."""
    choices = sorted((_choice(way, wish, facts, engines) for way in WAYS), key=lambda one: _key(one, wish))
    return tuple(_behind(choice, choices[place - 1], wish) if place else choice for place, choice in enumerate(choices))


def _choice(way: Way, wish: Wish, facts: Facts, engines: Engines) -> Choice:
    met = tuple(Met(need=need, cell=_answer(way, need)) for need in wish.all_needs)
    asked = {need.operation for need in wish.all_needs}
    rest = [operation for operation in Operation if operation not in asked]
    loses = tuple(one for one in rest if not one.is_cost and cell(way, one).answer is Answer.NO)
    costs = tuple(one for one in rest if one.is_cost and cell(way, one).answer is Answer.YES)
    draft, refusals, able = _tried(way, wish, facts, engines)
    return Choice(
        way=way,
        met=met,
        loses=loses,
        costs=costs,
        draft=draft,
        refusals=refusals,
        crowd="" if refusals else _crowd(way, wish, facts, able),
    )


def _answer(way: Way, need: Need) -> Cell:
    """A need as the matrix answers it; of a cost, its absence is what is asked for."""
    operation = need.operation
    if operation is None:
        wanted = Gives.NVME if need is Need.NVME else Gives.MEMORY
        answer = Answer.YES if way.gives is wanted else Answer.NO
        return Cell(answer=answer, why=f"the guest gets {way.gives}", evidence=(f"the lane {way.kind}",))
    found = cell(way, operation)
    if not operation.is_cost:
        return found
    turned = {Answer.YES: Answer.NO, Answer.NO: Answer.YES}.get(found.answer, found.answer)
    return Cell(answer=turned, why=found.why, evidence=found.evidence)


def _tried(
    way: Way, wish: Wish, facts: Facts, engines: Engines
) -> tuple[Draft | None, tuple[Refusal, ...], tuple[Draft, ...]]:
    """The best draft that this host can do, or the reasons against the one that has fewest; and all that it can do."""
    found = drafts(way, wish, facts)
    if isinstance(found, Unfit):
        return None, (Refusal(code="no-way", lane=None, reason=found.reason, remedy=found.remedy),), ()
    tried = [(draft, make_plan(draft.spec, room_for(draft.spec, facts), engines).refusals) for draft in found]
    able = tuple(draft for draft, refusals in tried if not refusals)
    if able:
        return able[0], (), able
    draft, refusals = min(tried, key=lambda one: len(one[1]))
    return draft, refusals, ()


def _crowd(way: Way, wish: Wish, facts: Facts, able: Sequence[Draft]) -> str:
    """Why so many machines cannot each have one; '' when they can."""
    if wish.density == 1:
        return ""
    if way.takes_drive and len(able) < wish.density:
        drives = "1 drive" if len(able) == 1 else f"{len(able)} drives"
        return f"each machine takes a whole drive: {wish.density} machines, and {drives} that could be taken"
    if way.name == "passthrough-vf":
        there = sum(f.sriov_enabled for f in facts.functions if f.is_nvme)
        if there < wish.density:
            return f"each machine takes a virtual function: {wish.density} machines, and {there} enabled here"
    return ""


def _key(choice: Choice, wish: Wish) -> tuple[int, ...]:
    answers = [met.cell.answer for met in choice.met]
    order = choice.way.order or _NO_ORDER
    return (
        not choice.possible,
        bool(choice.crowd) + sum(met.lost for met in choice.met),
        answers.count(Answer.UNPROVEN),
        answers.count(Answer.IF) + bool(choice.draft and choice.draft.unfinished),
        order if wish.latency else 0,
        _other_kind(choice, wish),
        bool(choice.draft and (choice.draft.edit or choice.draft.holds)),
        len(choice.loses),
        len(choice.costs),
        order,
        WAYS.index(choice.way),
    )


def _other_kind(choice: Choice, wish: Wish) -> bool:
    """Persistent memory is no disk: it is advised first only to those who ask for it."""
    return choice.way.gives is Gives.MEMORY and Need.PERSISTENT_MEMORY not in wish.needs


def _behind(choice: Choice, before: Choice, wish: Wish) -> Choice:
    """With the reason why another stands before it: the first thing in which the two differ."""
    if not choice.possible:
        return choice
    first, second = _key(before, wish), _key(choice, wish)
    place = next(index for index, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
    return dataclasses.replace(choice, behind=_words(place, before, choice))


def _words(place: int, before: Choice, choice: Choice) -> str:
    name = before.way.name
    match place:
        case 1:
            return f"{name} has more of what was asked"
        case 2:
            return f"of {name} more of it is proven"
        case 3:
            return f"{name} has it under fewer conditions{_unfinished(choice)}"
        case 4 | 9 if choice.way.order is None:
            return f"for {name} an order under dense I/O is known, for this one none: nvlane bench tells"
        case 4:
            return _by_order(name, choice)
        case 5:
            return f"it gives the guest {choice.way.gives}, and a disk was not ruled out"
        case 6:
            return f"{name} needs no second look: {_look(choice)}"
        case 7:
            more = ", ".join(sorted(set(choice.loses) - set(before.loses)))
            return f"as good for what was asked; {name} loses less besides ({more})"
        case 8:
            return f"as good for what was asked; {name} wants less of the host"
        case 9:
            return f"as good for what was asked; {_by_order(name, choice)} ({ORDER_IS})"
        case _:
            return f"as good as {name}: take either; this order is that of the list"


def _unfinished(choice: Choice) -> str:
    return "; this spec is not finished" if choice.draft and choice.draft.unfinished else ""


def _by_order(name: str, choice: Choice) -> str:
    below = (
        "" if choice.way.takes_drive or choice.way.order == 1 else ": here the host's file system is on the way, too"
    )
    return f"{name} comes first under dense I/O{below}"


def _look(choice: Choice) -> str:
    draft = choice.draft
    if draft is None:
        return ""
    return f"here the drive {draft.drive} holds {draft.holds}" if draft.holds else draft.edit


def question(wish: Wish) -> tuple[str, ...]:
    """What was asked, a line each."""
    lines = [f"{need}: {meaning(need)}" for need in wish.all_needs]
    if wish.density > 1:
        lines.append(f"density: {wish.density} machines on this host, a lane like this each")
    if wish.latency:
        lines.append(f"latency: {ORDER_IS}; this is from their design; nvlane bench measures it here")
    if wish.drive:
        lines.append(f"drive: {wish.drive}")
    return tuple(lines)
