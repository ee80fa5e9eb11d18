"""Advice in words and as values."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from nvlane.advise.cell import Way
from nvlane.advise.ranking import Choice, Met, question
from nvlane.advise.table import SIGN
from nvlane.advise.wish import Wish
from nvlane.cli.service.refused import refusal_text
from nvlane.model.codec import encode
from nvlane.model.errors import Refused

_WIDTH = 100


def advice_text(wish: Wish, choices: Sequence[Choice]) -> str:
    """For a person."""
    return "\n".join(_lines(wish, choices))


def _lines(wish: Wish, choices: Sequence[Choice]) -> Iterator[str]:
    fitting = [choice for choice in choices if choice.fits]
    lacking = [choice for choice in choices if choice.possible and not choice.fits]
    asked = question(wish)
    if asked:
        yield "asked:"
        yield from (line for one in asked for line in _wrapped(one, "  "))
        yield ""
    for number, choice in enumerate(fitting, 1):
        yield from _fitting(number, choice)
    if not fitting:
        yield "no lane does all of that on this host"
    if lacking:
        yield "\npossible here, and not all that was asked (or not proven):"
        yield from (line for choice in lacking for line in _lacking(choice))
    impossible = [choice for choice in choices if not choice.possible]
    if impossible:
        yield "\nnot possible here:"
        yield from _impossible(impossible)
    if fitting and (draft := fitting[0].draft) is not None:
        yield f"\nthe spec of {fitting[0].way.name} (alone: --spec; of another: --spec LANE):\n"
        yield draft.text.rstrip("\n")


def _fitting(number: int, choice: Choice) -> Iterator[str]:
    yield f"{number}. {choice.way.name}: {choice.way.title}"
    for met in choice.met:
        yield from _met(met)
    if choice.loses:
        yield from _wrapped(f"does without: {', '.join(choice.loses)}", "     ")
    if choice.costs:
        yield from _wrapped(f"costs: {', '.join(choice.costs)}", "     ")
    if choice.draft and choice.draft.drive:
        holds = f", which holds {choice.draft.holds}" if choice.draft.holds else ""
        yield from _wrapped(f"takes: {choice.draft.drive}{holds}", "     ")
    if choice.draft and choice.draft.edit:
        yield from _wrapped(f"in its spec: {choice.draft.edit}", "     ")
    if choice.behind:
        yield from _wrapped(f"not higher, because: {choice.behind}", "     ")


def _met(met: Met) -> Iterator[str]:
    head = f"     {SIGN[met.cell.answer]:<4}{met.need}: "
    yield from textwrap.wrap(
        met.cell.why, _WIDTH, initial_indent=head, subsequent_indent=" " * 9, break_on_hyphens=False
    )


def _lacking(choice: Choice) -> Iterator[str]:
    yield f"  {choice.way.name}"
    for met in choice.met:
        if met.lost or met.unproven:
            yield from _met(met)
    if choice.crowd:
        yield from _wrapped(f"no  {choice.crowd}", "     ", "         ")


def _impossible(choices: Sequence[Choice]) -> Iterator[str]:
    """Ways with the same reasons together; a reason that was said already is not explained again."""
    groups: dict[tuple[tuple[str, str], ...], list[Choice]] = {}
    for choice in choices:
        groups.setdefault(tuple((one.code, one.reason) for one in choice.refusals), []).append(choice)
    said: set[tuple[str, str]] = set()
    for reasons, alike in groups.items():
        yield f"  {', '.join(choice.way.name for choice in alike)}"
        for refusal in alike[0].refusals:
            again = (refusal.code, refusal.reason) in said
            words = f"  {refusal.reason}  [{refusal.code}]" if again else refusal_text(refusal, lambda _: "")
            yield from (f"  {line}" for line in words.splitlines())
        said.update(reasons)


def _wrapped(text: str, indent: str, further: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=further or f"{indent}  ", break_on_hyphens=False
    )


def spec_of(choices: Sequence[Choice], only: Way | None) -> str:
    """The spec of one way, or of the first that does all that was asked. Raises Refused when there is none."""
    for choice in choices:
        if choice.draft is not None and (choice.fits if only is None else choice.way is only and choice.possible):
            return choice.draft.text
    what = f"{only.name} is not possible on this host" if only else "no lane does all of that on this host"
    raise Refused(what, remedy="nvlane advise, without --spec, says why and what would help")


def advice_json(wish: Wish, choices: Sequence[Choice]) -> dict[str, Any]:
    """For a program."""
    return {
        "asked": {"needs": [str(need) for need in wish.all_needs], "density": wish.density, "latency": wish.latency},
        "choices": [
            {
                "lane": choice.way.name,
                "kind": str(choice.way.kind),
                "possible": choice.possible,
                "fits": choice.fits,
                "needs": [
                    {
                        "need": str(met.need),
                        "answer": str(met.cell.answer),
                        "why": met.cell.why,
                        "evidence": list(met.cell.evidence),
                    }
                    for met in choice.met
                ],
                "does_without": [str(one) for one in choice.loses],
                "costs": [str(one) for one in choice.costs],
                "crowd": choice.crowd,
                "behind": choice.behind,
                "refusals": encode(choice.refusals),
                "drive": choice.draft.drive if choice.draft else "",
                "edit": choice.draft.edit if choice.draft else "",
                "spec": choice.draft.text if choice.draft else "",
            }
            for choice in choices
        ],
    }
