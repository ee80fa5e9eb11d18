"""A program that speaks QMP on its standard streams, asked a list of questions in one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nvlane.model.errors import WireError
from nvlane.model.host import HostReader

#: One QMP command: its name and arguments.
Question = tuple[str, Mapping[str, Any]]


def ask(
    host: HostReader,
    argv: Sequence[str],
    questions: Sequence[Question],
    *,
    timeout: float = 60.0,
    errors: dict[int, str] | None = None,
) -> list[Any]:
    """The replies, in order: what 'return' holds, or None where the program answered with an error, the words of which
    go into `errors` under the question's number.

    Raises WireError when it did not answer everything (with its last words), HostError when it does not start.
    QEMU reads its input a byte at a time while it may take a command, so a whole script can wait in the pipe.
    """
    commands: list[dict[str, Any]] = [{"execute": "qmp_capabilities", "id": -1}]
    commands += [{"execute": name, "arguments": dict(args), "id": n} for n, (name, args) in enumerate(questions)]
    commands.append({"execute": "quit"})
    script = "".join(json.dumps(command) + "\n" for command in commands)
    output = host.query(argv, input=script, timeout=timeout)
    replies: dict[int, Any] = {}
    for line in output.stdout.splitlines():
        if line.startswith("{"):
            message = json.loads(line)
            if isinstance(message.get("id"), int):
                replies[message["id"]] = message.get("return")
                if errors is not None and "error" in message:
                    errors[message["id"]] = str(message["error"].get("desc", ""))
    if len(replies) != len(questions) + 1:
        words = output.stderr.strip().splitlines()[-1:] or [f"exit status {output.status}"]
        raise WireError(f"{argv[0]} answered {max(0, len(replies) - 1)} of {len(questions)} questions: {words[0]}")
    return [replies[n] for n in range(len(questions))]


class Schema:
    """The answer to query-qmp-schema (docs/devel/qapi-code-gen of QEMU): type names in it are numbers, so enums are
    found by way of the commands that use them."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._by_name = {entry["name"]: entry for entry in entries}

    def tag_values(self, command: str) -> tuple[str, ...]:
        """The values of the tag of a command's union argument: of blockdev-add the block drivers, of block-export-add
        the kinds of export. () when there is no such command."""
        entry = self._by_name.get(command)
        if entry is None:
            return ()
        union = self._by_name[entry["arg-type"]]
        member = next(m for m in union["members"] if m["name"] == union["tag"])
        return tuple(self._by_name[member["type"]]["values"])

    def enum_with(self, *values: str) -> tuple[str, ...]:
        """The first enum that has all these values."""
        for entry in self._by_name.values():
            if entry["meta-type"] == "enum" and set(values) <= set(entry["values"]):
                return tuple(entry["values"])
        return ()

    def has_object(self, *members: str) -> bool:
        """Whether there is a type of object with all these members."""
        return any(
            entry["meta-type"] == "object" and set(members) <= {member["name"] for member in entry["members"]}
            for entry in self._by_name.values()
        )


def version_text(reply: Any) -> str:
    """'10.0.2' of the answer to query-version."""
    qemu = reply["qemu"]
    return f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}"
