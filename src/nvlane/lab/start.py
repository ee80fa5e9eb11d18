"""`lab up`: image, disks, keys, machine, prompt; and everything taken away again when one of them fails."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import cache, keys, payload
from nvlane.lab.accelerator import Choice, choose
from nvlane.lab.drives import make_images
from nvlane.lab.emulator import Emulator, emulator
from nvlane.lab.image import Image, image
from nvlane.lab.kernel import full_kernel
from nvlane.lab.machine import CONSOLE_FD, QMP_FD, Accelerator, Kernel, LabFiles, LabMachine, arguments
from nvlane.lab.places import disk_dir, runtime_dir
from nvlane.lab.session import (
    BOOT_DEADLINE,
    Lab,
    LabState,
    NotReady,
    Progress,
    connect,
    known_host,
    look,
    record,
    remove,
    wait_ready,
)
from nvlane.lab.waiting import process_end, start_time
from nvlane.model.errors import HostError, SpecError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def quiet(_message: str) -> None:
    """A progress that says nothing."""


def to_stderr(message: str) -> None:
    """A progress for people."""
    print(f"nvlane: {message}", file=sys.stderr, flush=True)


def up(machine: LabMachine | None = None, progress: Progress = quiet) -> Lab:
    """Start the lab and return when it takes commands. One of that name that already runs is returned as it is."""
    began = time.monotonic()
    machine = machine or LabMachine()
    if not _NAME.fullmatch(machine.name):
        raise SpecError(f"{machine.name!r}: small letters, digits and '-', at most 31", place="lab name")
    with cache.locked(disk_dir().with_name(f"{machine.name}.lock")):
        there = look(machine.name)
        if there is not None and there.alive:
            if there.state.kernel != machine.kernel:
                raise HostError(
                    f"the lab {machine.name!r} runs already, with the {there.state.kernel} kernel",
                    remedy=f"nvlane lab down --name {machine.name}, or take another --name",
                )
            return there
        remove(machine.name)
        return _up(machine, began, progress)


def _up(machine: LabMachine, began: float, progress: Progress) -> Lab:
    root = image(progress)
    qemu = emulator(progress)
    choice = choose(qemu, root)
    progress(f"QEMU {qemu.version_text} ({qemu.why}); {choice.accelerator}: {choice.why}")
    machine = replace(machine, accelerator=choice.accelerator)
    try:
        return _once(machine, root, qemu, choice, began, progress)
    except NotReady as error:
        if choice.accelerator is not Accelerator.TCG:
            raise
        # Emulated processors of a busy machine may stall each other until the guest's scheduler loses its timer.
        progress(f"{error.message.splitlines()[0]}; once more")
        return _once(machine, root, qemu, choice, began, progress)


def _once(machine: LabMachine, root: Image, qemu: Emulator, choice: Choice, began: float, progress: Progress) -> Lab:
    """One start; whatever ends it early leaves nothing behind."""
    try:
        _prepare(machine, root, progress)
        return _start(machine, root, qemu, choice, began, progress)
    except BaseException:
        left = look(machine.name)
        if left is not None:
            left.down()
        remove(machine.name)
        raise


def _prepare(machine: LabMachine, root: Image, progress: Progress) -> None:
    """Make this lab's own files: drives with their content, keys, and the disk with nvlane itself."""
    progress("making the drives")
    directory, disks = runtime_dir() / machine.name, disk_dir() / machine.name
    for parent in (directory, disks):
        parent.mkdir(parents=True, mode=0o700)
    (directory / "keys").mkdir(mode=0o700)
    process.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(root.disk), str(disks / "root.qcow2")]
    )
    for drive in machine.drives:
        make_images(drive, disks)
    with (disks / "pmem.img").open("wb") as file:
        file.truncate(machine.pmem_image_bytes)
    user = keys.make_pair(directory / "keys" / "user", "nvlane-lab")
    host = keys.make_pair(directory / "keys" / "host", "nvlane-lab")
    (directory / "known_hosts").write_text(known_host(host))
    inside = directory / "inside"
    inside.mkdir(mode=0o700)
    (inside / "authorized_keys").write_text(user + "\n")
    (inside / "host_key").write_bytes(keys.dropbear_form(directory / "keys" / "host"))
    (inside / "host_key").chmod(0o600)
    payload.payload(root, disks / "payload.img", inside)


def _start(machine: LabMachine, root: Image, qemu: Emulator, choice: Choice, began: float, progress: Progress) -> Lab:
    progress("booting")
    directory = runtime_dir() / machine.name
    full = full_kernel(progress) if machine.kernel is Kernel.FULL else None
    files = LabFiles(
        disks=disk_dir() / machine.name,
        kernel=full.kernel if full else root.kernel,
        site=payload.site(root),
        console_log=directory / "console.log",
        initrd=full.initrd if full else None,
        modules=full.disk if full else None,
    )
    with _listener(directory / "qmp.sock") as monitor, _listener(directory / "console.sock") as console:
        pid = process.spawn(
            [*qemu.argv, *arguments(machine, files)],
            log=directory / "qemu.log",
            fds={QMP_FD: monitor.fileno(), CONSOLE_FD: console.fileno()},
            env=dict(qemu.environment),
        )
    state = LabState(
        name=machine.name,
        pid=pid,
        started=start_time(pid),
        port=0,
        accelerator=choice.accelerator,
        why=choice.why,
        qemu=qemu.version_text,
        seconds=0.0,
        kernel=machine.kernel,
    )
    try:
        lab = record(state)
        with connect(directory / "console.sock") as console_in:
            wait_ready(console_in, lab, timeout=BOOT_DEADLINE)
        lab = record(replace(state, port=_ssh_port(lab)))
        lab.channel.open()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        process_end(pid, timeout=10)
        raise
    return record(replace(lab.state, seconds=round(time.monotonic() - began, 2)))


def _listener(path: Path) -> socket.socket:
    before = os.umask(0o177)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(1)
    return listener


def _ssh_port(lab: Lab) -> int:
    text: str = lab.qmp("human-monitor-command", command_line="info usernet")
    found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
    if not found:
        raise HostError(f"QEMU does not say which port it forwards to the lab:\n{text}")
    return int(found[1])
