"""A verb for a libvirt domain of another host: done by the nvlane of that host, over ssh.

Preparing a host (drivers, hugepages, sockets, images, the journal) is done on that host and nowhere else. So the words
go there, with the spec on stdin, and answers and exit status come back. A question is asked here: nvlane there shows
what it would do (`--json --print-diff`), and is then told the digest of what was shown and answered with yes
(`--agreed`); where that is no longer what it would do, it does nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nvlane import __version__
from nvlane.apply import process
from nvlane.cli.output import Output
from nvlane.model.errors import HostError
from nvlane.wire.libvirt_ssh import SshUri

if TYPE_CHECKING:
    from nvlane.cli.domain_options import Question

#: ssh's own failure, and a shell's when there is no such program, or one that it may not run (POSIX, 2.8.2).
_HOP: Final = 255
_NO_PROGRAM: Final = (126, 127)
#: Seconds for nvlane there to say which one it is; ssh ends the wait for a host that is silent.
_VERSION_DEADLINE: Final = 120.0


def elsewhere(output: Output, uri: str | None) -> Elsewhere | None:
    """The host of this URI, reached and its nvlane found; None where the URI is none of ssh. Raises HostError."""
    there = SshUri.parse(uri) if uri else None
    if there is None:
        return None
    _find_nvlane(there)
    return Elsewhere(output=output, there=there)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """nvlane on another host; `words` of its calls are a verb with its options and arguments."""

    output: Output
    there: SshUri

    @property
    def connect(self) -> tuple[str, str]:
        """The option for the same libvirt, as it is there."""
        return ("--connect", self.there.local)

    def run(self, verb: str, *words: str, text: str = "") -> int:
        """Run it there, with our stdout and stderr, and `text` on its stdin. Its exit status."""
        return self._status(process.attended(self._argv(verb, *words), input=text, capture=False)[0])

    def ask(self, verb: str, *words: str, text: str = "") -> tuple[int, Any]:
        """Its exit status, and the JSON that it gives where it is asked for that; its stderr is ours."""
        status, said = process.attended(self._argv(verb, *words), input=text, capture=True)
        self._status(status)
        try:
            return status, json.loads(said)
        except ValueError as error:
            raise HostError(f"nvlane on {self.there.name} gave no JSON: {said[:200]!r}") from error

    def change(self, verb: str, *words: str, domain: str, question: Question, text: str = "") -> int:
        """Run a verb there that changes a domain, once the question was answered here."""
        if question.print_diff:
            return self.run(verb, "--print-diff", *words, text=text)
        if question.yes:
            return self._done(self.run(verb, "--yes", *words, text=text))
        agreed = self.agree(verb, *words, question=question, text=text)
        if isinstance(agreed, int):
            return agreed
        if agreed is None:
            return question.nothing_done(domain)
        return self._done(self.run(verb, *agreed, *words, text=text))

    def _done(self, status: int) -> int:
        """nvlane there tells of commands as they are there."""
        if status == 0:
            self.output.say(f"that was on {self.there.name}: from here, with --connect '{self.there.uri}'")
        return status

    def agree(self, verb: str, *words: str, question: Question, text: str = "") -> tuple[str, str] | int | None:
        """Show what the verb would do and ask: the option that binds it to what was shown, None for a no, or the exit
        status of a failure, which nvlane there has told of."""
        from nvlane.cli.service.domain import Offer

        status, value = self.ask(verb, "--json", "--print-diff", *words, text=text)
        if status:
            if self.output.json:
                self.output.data(value, str)
            return status
        offer = Offer(name=value["domain"], diff=value["diff"], plugs=tuple(value["plugs"]))
        return ("--agreed", offer.digest) if question(offer) else None

    def _argv(self, verb: str, *words: str) -> list[str]:
        loud = ["--json"] if self.output.json else []
        loud += ["--quiet"] if self.output.verbose == 0 else ["--verbose"] * (self.output.verbose - 1)
        return self.there.argv(verb, *loud, *words)

    def _status(self, status: int) -> int:
        if status == _HOP:
            raise HostError(
                f"the way to {self.there.name} was lost while nvlane was at work there; it may still be",
                remedy=f"nvlane status --connect '{self.there.uri}' shows what stands, nvlane restore puts it back",
            )
        return status


def _find_nvlane(there: SshUri) -> None:
    """Raises HostError where the host is not reached, or has no nvlane, or another one."""
    done = process.run(there.argv("--version"), input="", timeout=_VERSION_DEADLINE, check=False)
    if done.returncode == _HOP:
        words = " ".join(done.stderr.split()) or "it said nothing"
        raise HostError(f"ssh does not reach {there.name}: {words}", remedy=_hop_remedy(there, words))
    install = f"install nvlane {__version__} there (pipx install nvlane), on the PATH of {there.name}'s login shell"
    if done.returncode in _NO_PROGRAM:
        raise HostError(f"{there.name} has no nvlane, which prepares that host for its domains", remedy=install)
    found = re.search(r"^nvlane (\S+)$", done.stdout, re.MULTILINE)
    if found is None:
        words = " ".join((done.stderr or done.stdout).split()[-40:])
        raise HostError(f"nvlane on {there.name} does not run: {words}", remedy=install)
    if found[1] != __version__:
        raise HostError(f"{there.name} has nvlane {found[1]}, and this is {__version__}", remedy=install)


def _hop_remedy(there: SshUri, words: str) -> str:
    if "Host key verification failed" in words or "HOST IDENTIFICATION HAS CHANGED" in words:
        return f"ssh {there.name} once and compare its key (?no_verify=1 in the URI takes any)"
    if "Permission denied" in words:
        return f"ssh-copy-id {there.name}, or name a key with ?keyfile=PATH; nobody is asked for a password"
    return f"see whether it is up, and ssh -v {there.name}"
