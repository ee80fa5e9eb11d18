"""A spec or a lane for a libvirt domain of another host: its text as the nvlane there gets it on stdin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from nvlane.cli.service.up import SpecFile
from nvlane.model.codec import encode
from nvlane.model.errors import SpecError
from nvlane.spec.reader import parse_lane, parse_spec
from nvlane.wire.libvirt_ssh import SshUri

#: Stands for the directory that a relative path starts at: no path of a host begins like this one.
_NOWHERE: Final = "/\0relative"


def lane_text(file: SpecFile) -> str:
    """The text of a file with one lane. Raises SpecError, also for a relative path in it."""
    lane = parse_lane(file.text, file.path, _NOWHERE)
    _refuse_relative(file, {"lane": [encode(lane)]})
    return file.text


def spec_text(file: SpecFile, there: SshUri) -> str:
    """The text of a spec whose machine.connect is `there`, with the connection that this is on that host."""
    spec = parse_spec(file.text, file.path, _NOWHERE)
    _refuse_relative(file, {"machine": encode(spec.machine), "lane": encode(spec.lanes)})
    quoted = re.escape(spec.machine.connect)
    text = re.sub(rf"""(?m)^(\s*connect\s*=\s*)(["']){quoted}\2""", rf'\g<1>"{there.local}"', file.text, count=1)
    if parse_spec(text, file.path, _NOWHERE).machine.connect != there.local:
        message = "is the URI of another host, and is not written so that it can be put in the words of that host"
        remedy = f'write it on a line of its own below [machine]: connect = "{there.uri}"'
        raise SpecError(message, place="machine.connect", source=file.path, remedy=remedy)
    return text


def _refuse_relative(file: SpecFile, values: object) -> None:
    for place, text in _texts(values, ""):
        if text.startswith(_NOWHERE):
            raise SpecError(
                f"'{text.removeprefix(_NOWHERE).lstrip('/')}' is a relative path, and the domain is on another host",
                place=place,
                source=file.path,
                remedy="write the whole path that it has on that host",
            )


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Every text in a value, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, Sequence):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{index}]")
