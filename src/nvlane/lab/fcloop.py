"""Fibre Channel without an adapter: a port of this host and one of a Target, linked by nvme-fcloop
(drivers/nvme/target/fcloop.c)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nvlane.apply import process
from nvlane.lab.borrowed import modules_as_before

_HERE = ("0x10001100aa000001", "0x20001100aa000001")
_THERE = ("0x10001100ab000001", "0x20001100ab000001")
#: Node and port name, as addresses of NVMe over Fibre Channel are written.
HOST_ADDRESS, TARGET_ADDRESS = (f"nn-{node}:pn-{port}" for node, port in (_HERE, _THERE))
_CONTROL = Path("/sys/class/fcloop/ctl")
_TARGET_WITH_DISCOVERY = "0x60"  # FC_PORT_ROLE_NVME_TARGET | FC_PORT_ROLE_NVME_DISCOVERY (uapi/scsi/fc/fc_els.h)
#: Those that come with nvme-fcloop, or with an export over it, the users of others first.
_MODULES = ("nvme_fcloop", "nvmet_fc", "nvme_fc", "nvmet", "nvme_fabrics", "configfs")


@contextmanager
def fibre_channel() -> Iterator[None]:
    """Linked ports at HOST_ADDRESS and TARGET_ADDRESS; modules that came with them are unloaded again."""
    here, there = (f"wwnn={node},wwpn={port}" for node, port in (_HERE, _THERE))
    remote = f"{there},lpwwnn={_HERE[0]},lpwwpn={_HERE[1]},roles={_TARGET_WITH_DISCOVERY}"
    with ExitStack() as later:
        later.enter_context(modules_as_before(_MODULES))
        process.run(["modprobe", "nvme-fcloop"])
        # They go in the reverse order: with the remote port before the Target's, a later removal fails (ENOENT).
        for kind, added, removed in (("local", here, here), ("remote", remote, there), ("target", there, there)):
            (_CONTROL / f"add_{kind}_port").write_text(added)
            later.callback((_CONTROL / f"del_{kind}_port").write_text, removed)
        yield
