"""libvirt: a connection and the few things that nvlane asks of a domain, without policy.

The package libvirt-python is an optional extra: it is imported at the first connection. Each call has a deadline in
seconds, for the library itself has none: it is made in a thread of its own, which is left behind when the time is over.
"""

from __future__ import annotations

import importlib
import json
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeVar

from nvlane.model.errors import HostError, WireError
from nvlane.wire.lines import DeadlineMissed

#: Seconds for a question, and for what starts, ends or changes a domain.
ASK: Final = 30.0
CHANGE: Final = 120.0

T = TypeVar("T")


class LibvirtError(HostError):
    """libvirt said no, or could not be reached. `code` is its VIR_ERR_ name without that prefix ('NO_DOMAIN'),
    `words` are its own."""

    def __init__(self, what: str, code: str, words: str, *, remedy: str = "") -> None:
        super().__init__(f"{what}: {words}", remedy=remedy)
        self.code = code
        self.words = words


class DomainGone(LibvirtError):
    """There is no such domain, or no longer."""


class Disconnected(LibvirtError):
    """The daemon cannot be reached, or went away."""


#: VIR_ERR_ names that tell of the connection and not of what was asked.
_LOST: Final = frozenset({"NO_CONNECT", "RPC", "SYSTEM_ERROR", "GNUTLS_ERROR", "SSH", "LIBSSH", "INVALID_CONN"})
_DENIED: Final = frozenset({"AUTH_FAILED", "AUTH_CANCELLED", "AUTH_UNAVAILABLE", "ACCESS_DENIED", "OPERATION_DENIED"})


def library() -> Any:
    """libvirt-python. Raises HostError where it is missing."""
    try:
        module = importlib.import_module("libvirt")
    except ImportError as error:
        raise HostError(
            f"libvirt-python is not there, which nvlane speaks to libvirt with ({error})",
            remedy="pip install 'nvlane[libvirt]' (it is built with libvirt's headers: apt install libvirt-dev "
            "pkg-config), or run nvlane with the system's Python after apt install python3-libvirt",
        ) from error
    # Its default is to print every error on stderr, also those that we expect.
    module.registerErrorHandler(lambda *_: None, None)
    return module


class Libvirt:
    """One connection. `uri` is what virsh's --connect takes; '' is the library's own default."""

    def __init__(self, uri: str, library: Any, connection: Any) -> None:
        self.uri = uri
        self._library = library
        self._connection = connection

    @classmethod
    def connect(cls, uri: str, *, deadline: float = ASK) -> Self:
        """Connect. Raises HostError with the remedy."""
        module = library()
        self = cls(uri, module, None)
        self._connection = self.ask(f"cannot connect to {uri or 'libvirt'}", lambda: module.open(uri or None), deadline)
        self.uri = str(self.ask("cannot read the connection's URI", self._connection.getURI))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; libvirt keeps count and says -1 for one that is gone already."""
        self._within("closing the connection", self._connection.close, ASK)

    @property
    def is_local(self) -> bool:
        """Whether the domains run on this host."""
        return not urllib.parse.urlsplit(self.uri).hostname

    @property
    def is_session(self) -> bool:
        return urllib.parse.urlsplit(self.uri).path.rstrip("/").endswith("/session")

    def versions(self) -> tuple[int, int]:
        """libvirt's and the hypervisor's: 9000000 is 9.0.0."""
        what = "cannot read the versions"
        return (
            int(self.ask(what, self._connection.getLibVersion)),
            int(self.ask(what, self._connection.getVersion)),
        )

    def capabilities(self) -> str:
        """The host's capabilities as XML."""
        return str(self.ask("cannot read the capabilities", self._connection.getCapabilities))

    def domain_capabilities(self, emulator: str, architecture: str, machine: str, kind: str) -> str:
        """What a domain of this kind ('kvm', 'qemu') may have, as XML."""
        get = self._connection.getDomainCapabilities
        return str(self.ask("cannot read the domain capabilities", lambda: get(emulator, architecture, machine, kind)))

    def names(self) -> tuple[str, ...]:
        """All domains, those that do not run too."""
        found = self.ask("cannot list the domains", self._connection.listAllDomains)
        return tuple(sorted(str(domain.name()) for domain in found))

    def domain(self, name: str) -> Domain:
        """A domain by its name or UUID. Raises DomainGone."""
        try:
            handle = self.ask(f"domain '{name}'", lambda: self._connection.lookupByName(name))
        except DomainGone:
            by_uuid = _by_uuid(self, name)
            if by_uuid is None:
                raise
            handle = by_uuid
        return Domain(self, handle)

    def define(self, xml: str) -> Domain:
        """Define a domain, or its next start anew. Raises LibvirtError with libvirt's words."""
        define = self._connection.defineXML
        return Domain(self, self.ask("libvirt refuses the definition", lambda: define(xml), CHANGE))

    def ask(self, what: str, call: Callable[[], T], deadline: float = ASK) -> T:
        """One call of the library, its errors turned into ours; `what` begins the message."""
        try:
            return self._within(what, call, deadline)
        except self._library.libvirtError as error:
            raise self._translated(what, error) from error

    def _within(self, what: str, call: Callable[[], T], deadline: float) -> T:
        values: list[T] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                values.append(call())
            except self._library.libvirtError as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True, name="libvirt")
        thread.start()
        thread.join(deadline)
        if errors:
            raise errors[0]
        if values:
            return values[0]
        raise DeadlineMissed(
            f"{what}: libvirt did not answer within {deadline:g} s",
            remedy="another client may hold the domain (virsh domjobinfo), or the daemon hangs: see its log",
        )

    def _translated(self, what: str, error: Any) -> LibvirtError:
        number, words = error.get_error_code(), str(error.get_error_message() or error)
        code = _name_of(self._library, number)
        if code == "NO_DOMAIN":
            remedy = f"virsh --connect {self.uri} list --all shows what there is"
            return DomainGone(what, code, words, remedy=remedy)
        if code in _DENIED:
            remedy = "run as root, or as a member of the group that may (Debian: libvirt)"
            return LibvirtError(what, code, words, remedy=remedy)
        if code in _LOST and ("connect" in what or not self._alive()):
            remedy = (
                f"is the daemon up? virsh --connect {self.uri or 'URI'} version; systemctl status libvirtd virtqemud"
            )
            return Disconnected(what, code, words, remedy=remedy)
        return LibvirtError(what, code, words)

    def _alive(self) -> bool:
        try:
            return bool(self._within("asking whether it is there", self._connection.isAlive, ASK))
        except (self._library.libvirtError, WireError):
            return False


class Domain:
    """One domain of a connection."""

    def __init__(self, libvirt: Libvirt, handle: Any) -> None:
        self._libvirt = libvirt
        self._handle = handle
        self.name = str(handle.name())
        self.uuid = str(handle.UUIDString())

    def xml(self, *, inactive: bool) -> str:
        """As it will start next (`inactive`), or as it runs. With passwords, for what is defined again needs them."""
        module = self._libvirt._library
        flags = module.VIR_DOMAIN_XML_SECURE | (module.VIR_DOMAIN_XML_INACTIVE if inactive else 0)
        return str(self._ask("its XML", lambda: self._handle.XMLDesc(flags)))

    @property
    def is_active(self) -> bool:
        return bool(self._ask("whether it runs", self._handle.isActive))

    @property
    def is_persistent(self) -> bool:
        return bool(self._ask("whether it is persistent", self._handle.isPersistent))

    @property
    def number(self) -> int:
        """libvirt's number of a domain that runs, another one after each start; -1 for one that does not."""
        return int(self._ask("its id", self._handle.ID))

    def start(self) -> None:
        self._ask("it does not start", self._handle.create, CHANGE)

    def shutdown(self) -> None:
        """Press the power button."""
        self._ask("it cannot be asked to shut down", self._handle.shutdown)

    def destroy(self) -> None:
        """End it at once."""
        self._ask("it cannot be ended", self._handle.destroy, CHANGE)

    def attach(self, xml: str) -> None:
        """Plug a device into the running domain."""
        flag = self._libvirt._library.VIR_DOMAIN_AFFECT_LIVE
        self._ask("libvirt does not attach the device", lambda: self._handle.attachDeviceFlags(xml, flag), CHANGE)

    def detach(self, alias: str) -> None:
        """Ask the running domain's guest to let a device go; it goes later."""
        flag = self._libvirt._library.VIR_DOMAIN_AFFECT_LIVE
        self._ask(f"libvirt does not detach {alias}", lambda: self._handle.detachDeviceAlias(alias, flag), CHANGE)

    def add_iothread(self, number: int) -> None:
        flag = self._libvirt._library.VIR_DOMAIN_AFFECT_LIVE
        self._ask("libvirt adds no iothread", lambda: self._handle.addIOThread(number, flag))

    def remove_iothread(self, number: int) -> None:
        flag = self._libvirt._library.VIR_DOMAIN_AFFECT_LIVE
        self._ask("libvirt removes no iothread", lambda: self._handle.delIOThread(number, flag))

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, deadline: float = ASK) -> Any:
        """One QMP command. Raises MonitorRefused with QEMU's words."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        send = importlib.import_module("libvirt_qemu").qemuMonitorCommand
        text = self._ask(f"QMP {command}", lambda: send(self._handle, json.dumps(request), 0), deadline)
        reply = json.loads(text)
        if "error" in reply:
            raise MonitorRefused(command, str(reply["error"].get("class", "")), str(reply["error"].get("desc", reply)))
        return reply.get("return")

    def agent(self, request: Mapping[str, Any], *, deadline: float) -> Any:
        """One command of the QEMU guest agent, and its whole reply."""
        send = importlib.import_module("libvirt_qemu").qemuAgentCommand
        seconds = max(1, int(deadline))
        text = self._ask("the guest agent", lambda: send(self._handle, json.dumps(request), seconds, 0), deadline + ASK)
        return json.loads(text)

    def _ask(self, what: str, call: Callable[[], T], deadline: float = ASK) -> T:
        return self._libvirt.ask(f"domain '{self.name}': {what}", call, deadline)


class MonitorRefused(HostError):
    """QEMU refused a QMP command. `kind` is its error class, `words` are its own."""

    def __init__(self, command: str, kind: str, words: str) -> None:
        super().__init__(f"QMP {command}: {words}")
        self.command = command
        self.kind = kind
        self.words = words


def _by_uuid(libvirt: Libvirt, text: str) -> Any:
    lookup = libvirt._connection.lookupByUUIDString
    try:
        return libvirt.ask(f"domain '{text}'", lambda: lookup(text))
    except LibvirtError:
        return None  # no UUID, or that of no domain: the error of the name is the better one


def _name_of(module: Any, number: int) -> str:
    """'NO_DOMAIN' for VIR_ERR_NO_DOMAIN."""
    names = (name for name in dir(module) if name.startswith("VIR_ERR_"))
    return next(
        (name[8:] for name in names if getattr(module, name) == number and name[8:] not in _LEVELS), str(number)
    )


#: The names that the levels of errors have, beside those of the codes.
_LEVELS: Final = frozenset({"NONE", "WARNING", "ERROR"})
