"""A libvirt URI with ssh in it (`qemu+ssh://[user@]host[:port]/system`), and the way over ssh to that host.

What the user's own ssh configuration says holds; the URI's parameters that virsh has for ssh are added to it
(https://libvirt.org/remote.html, "Extra parameters").
"""

from __future__ import annotations

import shlex
import urllib.parse
from dataclasses import dataclass
from typing import Final, Self

from nvlane.model.errors import HostError

#: Parameters that are about libvirt's own tunnel, which nvlane has no need of: on that host libvirt is local.
_OF_THE_TUNNEL: Final = frozenset({"netcat", "proxy", "mode", "no_tty"})
_PARAMETERS: Final = ("command", "keyfile", "no_verify", "known_hosts")
_PATHS: Final = ("/system", "/session")
#: Seconds: to connect, and between two signs of life, of which four may be missing.
_SETTINGS: Final = ("BatchMode=yes", "ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=4")
# Login shells are the user's, and their profiles may print: stdin and stdout are kept from them, and nvlane has both.
# Their PATH finds what was installed for that user alone, as pipx does it.
_THERE: Final = """exec 3>&1 4<&0; exec sh -lc 'exec nvlane "$@" >&3 3>&- <&4 4<&-' nvlane "$@" >&2 </dev/null"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshUri:
    """`uri` is as it was written, `local` what it is on that host; '' for what the URI leaves out, and 0 for a port."""

    uri: str
    local: str
    host: str
    user: str = ""
    port: int = 0
    ssh: str = "ssh"
    keyfile: str = ""
    known_hosts: str = ""
    verify: bool = True

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """None for a URI of another transport. Raises HostError for one that cannot be followed."""
        try:
            parts = urllib.parse.urlsplit(uri)
            port = parts.port
        except ValueError as error:
            raise HostError(f"{uri} is no URI: {error}", remedy=_FORM) from error
        driver, _, transport = parts.scheme.partition("+")
        if transport != "ssh":
            return None
        # Not `hostname`, which is in small letters: ssh's own configuration tells them apart.
        host = parts.netloc.rpartition("@")[2]
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if driver != "qemu" or not host or parts.path.rstrip("/") not in _PATHS or host.startswith("-"):
            raise HostError(f"{uri} names no libvirt that runs QEMU on another host", remedy=_FORM)
        given = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        for name in given.keys() - _OF_THE_TUNNEL:
            if name not in _PARAMETERS:
                known = ", ".join(_PARAMETERS)
                raise HostError(
                    f"{uri} has the parameter '{name}', which nvlane does not follow", remedy=f"use {known}"
                )
        return cls(
            uri=uri,
            local=f"qemu://{parts.path.rstrip('/')}",
            host=host,
            user=urllib.parse.unquote(parts.username or ""),
            port=port or 0,
            ssh=given.get("command") or "ssh",
            keyfile=given.get("keyfile", ""),
            known_hosts=given.get("known_hosts", ""),
            verify=given.get("no_verify", "0") == "0",
        )

    @property
    def name(self) -> str:
        """For words to a person, and for `ssh` to try."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def argv(self, *words: str) -> list[str]:
        """The command here that runs `nvlane WORDS...` there, on stdin and stdout of its own."""
        options = [word for setting in _SETTINGS for word in ("-o", setting)]
        if self.keyfile:
            options += ["-i", self.keyfile]
        if self.known_hosts:
            options += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        if not self.verify:
            options += ["-o", "StrictHostKeyChecking=no"]
        options += ["-p", str(self.port)] if self.port else []
        options += ["-l", self.user] if self.user else []
        there = shlex.join(["sh", "-c", _THERE, "nvlane", *words])
        return [self.ssh, "-T", *options, "--", self.host, there]


_FORM: Final = "write it as qemu+ssh://[user@]host[:port]/system"
