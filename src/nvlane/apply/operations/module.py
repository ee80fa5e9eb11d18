"""Kernel modules: loaded with what they need, unloaded with what came along, and only what nobody uses by then."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from nvlane.apply.operations.found import FoundModule
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, kept
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.plan.step import LoadModule, UnloadModule

#: Modules that other runs had to load -> the run's name. The last of them to end unloads.
Others = Callable[[], Mapping[str, str]]


def no_others() -> Mapping[str, str]:
    return {}


def loaded_modules(host: HostReader) -> dict[str, tuple[int, tuple[str, ...]]]:
    """/proc/modules: name -> (reference count, names of the modules that use it)."""
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    if not host.exists("/proc/modules"):
        return found  # a kernel built without modules
    for line in host.read_text("/proc/modules").splitlines():
        name, _size, count, users, *_ = line.split()
        found[name] = (int(count), tuple(user for user in users.split(",") if user not in ("", "-")))
    return found


def kernel_name(name: str) -> str:
    """The kernel writes '-' in a module's name as '_'."""
    return name.replace("-", "_")


class LoadModuleOperation:
    def __init__(self, others: Others = no_others) -> None:
        self._others = others

    def observe(self, host: Host, step: LoadModule) -> FoundModule:
        others = self._others()
        # What is there only because another run loaded it counts as missing: then the last run to end unloads it.
        loaded = {name for name in loaded_modules(host) if name not in others}
        if kernel_name(step.name) in loaded:
            return FoundModule(missing=())
        shown = host.query(["modprobe", "--show-depends", step.name])
        if shown.status != 0:
            raise HostError(
                f"there is no kernel module {step.name} for this kernel: {shown.stderr.strip()}",
                remedy="install the full kernel package (Debian: linux-image-amd64), or the modules of this kernel",
            )
        wanted = []
        for line in shown.stdout.splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod":
                name = kernel_name(path.split()[0].rpartition("/")[2].partition(".ko")[0])
                if name not in loaded and name not in wanted:
                    wanted.append(name)
        return FoundModule(missing=tuple(wanted))

    def check(self, host: Host, step: LoadModule, found: FoundModule) -> None:
        """Nothing that was planned can have changed: a module that is loaded by now is as good."""

    def perform(self, host: Host, step: LoadModule, found: FoundModule, keep: Keep) -> None:  # noqa: ARG002
        if found.missing:
            host.load_module(step.name)

    def inverse(self, step: LoadModule, found: FoundModule, result: None) -> UnloadModule | None:  # noqa: ARG002
        return UnloadModule(name=step.name, modules=found.missing) if found.missing else None


class UnloadModuleReversal(Idempotent):
    def __init__(self, others: Others = no_others) -> None:
        self._others = others

    def observe(self, host: Host, inverse: UnloadModule) -> FoundModule:
        loaded = loaded_modules(host)
        return FoundModule(missing=tuple(name for name in inverse.modules if name not in loaded))

    def perform(self, host: Host, inverse: UnloadModule, found: FoundModule) -> Outcome:
        if set(found.missing) >= set(inverse.modules):
            return already("none of them is loaded any more")
        others = self._others()
        reasons = {name: f"{name} is also needed by the run '{run}'" for name, run in others.items()}
        waiting = [name for name in reversed(inverse.modules) if name not in found.missing]
        # A module goes once those that use it are gone; so go round until a round changes nothing.
        while waiting:
            left = [name for name in waiting if name in others or not self._unload(host, name, reasons)]
            if left == waiting:
                return kept("; ".join(reasons[name] for name in left))
            waiting = left
        return PUT_BACK

    def _unload(self, host: Host, name: str, reasons: dict[str, str]) -> bool:
        loaded = loaded_modules(host)
        if name not in loaded:
            return True
        count, users = loaded[name]
        if users:
            reasons[name] = f"{name} is used by {', '.join(users)}"
            return False
        bound = bound_functions(host, name)
        if bound:
            # The kernel would let it go, and take the driver away from under them.
            reasons[name] = f"{name} drives {', '.join(bound)}"
            return False
        if count:
            reasons[name] = f"{name} is in use ({count} references, by processes or the kernel itself)"
            return False
        try:
            host.unload_module(name)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EAGAIN):
                raise HostError(f"cannot unload {name}: {error.strerror}") from error
            reasons[name] = f"{name} is in use"
            return False
        return True


def bound_functions(host: HostReader, module: str) -> tuple[str, ...]:
    """Devices of any bus that a module's drivers have now: /sys/module/NAME/drivers links to the drivers."""
    base = f"/sys/module/{module}/drivers"
    try:
        drivers = host.listdir(base)
    except FileNotFoundError:
        return ()
    found = []
    for driver in drivers:
        for name in host.listdir(f"{base}/{driver}"):
            # Beside its devices a driver's directory has its attributes and the link to its module.
            if name != "module" and host.exists(f"{base}/{driver}/{name}/subsystem"):
                found.append(name)
    return tuple(found)
