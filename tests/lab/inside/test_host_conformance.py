"""The in-memory host behaves as a real kernel does: each test runs on both.

The real half runs in the lab, as root:
nvlane lab run python3 -m pytest /nvlane/tests/lab/inside/test_host_conformance.py
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_hosts import PAGE, Subject, linux_subject, memory_subject

from nvlane.apply.operations.driver import BindDriverOperation, RestoreDriverReversal
from nvlane.apply.operations.function import driver_of, hand_over, observe_function
from nvlane.apply.operations.hugepages import (
    ReleaseHugepagesReversal,
    ReserveHugepagesOperation,
    observe_pool,
    pool_directory,
)
from nvlane.apply.operations.module import LoadModuleOperation, UnloadModuleReversal, loaded_modules
from nvlane.apply.operations.mount import MountHugetlbfsOperation, UnmountReversal, observe_mount
from nvlane.apply.operations.operation import Fate
from nvlane.apply.operations.processes import find_by_token, start_time_of
from nvlane.apply.snapshot import differences, host_snapshot
from nvlane.model.errors import HostError, Refused
from nvlane.plan.step import BindDriver, LoadModule, MountHugetlbfs, ReserveHugepages

_IN_LAB = pytest.mark.skipif(os.environ.get("NVLANE_LAB") != "1", reason="changes the host: in the lab only")


@pytest.fixture(params=["memory", pytest.param("linux", marks=[pytest.mark.lab, _IN_LAB])])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    made = memory_subject() if request.param == "memory" else linux_subject(tmp_path)
    before = host_snapshot(made.host)
    yield made
    assert differences(before, host_snapshot(made.host)) == ()


@pytest.fixture
def vfio(subject: Subject) -> Iterator[None]:
    """vfio-pci is loaded, and unloaded again."""
    operation = LoadModuleOperation()
    step = LoadModule(name="vfio-pci")
    found = operation.observe(subject.host, step)
    operation.perform(subject.host, step, found, lambda _: None)
    yield
    inverse = operation.inverse(step, found, None)
    if inverse is not None:
        reversal = UnloadModuleReversal()
        outcome = reversal.perform(subject.host, inverse, reversal.observe(subject.host, inverse))
        assert outcome.fate is Fate.PUT_BACK, outcome


def refused(expected: int, *candidates: int) -> object:
    """raises OSError with one of these errno."""
    return pytest.raises(OSError, check=lambda error: error.errno in (expected, *candidates))  # type: ignore[call-overload]


def bind_step(subject: Subject, driver: str = "vfio-pci") -> BindDriver:
    found = observe_function(subject.host, subject.drive)
    return BindDriver(
        address=subject.drive,
        driver=driver,
        expect_driver="nvme",
        expect_override="",
        expect_serial=subject.serial,
        group=found.group,
    )


# --- PCI binding


def test_an_override_is_set_and_an_empty_line_clears_it(subject: Subject) -> None:
    path = f"{subject.drive.sysfs}/driver_override"
    subject.host.write_text(path, "some-driver")
    assert subject.host.read_text(path) == "some-driver\n"
    subject.host.write_text(path, "\n")
    assert subject.host.read_text(path) == "(null)\n"


def test_unbinding_takes_the_drive_away_and_a_probe_brings_it_back(subject: Subject) -> None:
    host, base = subject.host, subject.drive.sysfs
    before = observe_function(host, subject.drive)
    assert before.drive is not None and before.drive.serial == subject.serial
    node = f"/dev/{before.drive.namespaces[0].name}"
    assert host.exists(node)
    host.write_text(f"{base}/driver/unbind", str(subject.drive))
    assert observe_function(host, subject.drive).drive is None
    assert driver_of(host, subject.drive) == ""
    assert not host.exists(node)
    host.write_text("/sys/bus/pci/drivers_probe", str(subject.drive))
    assert driver_of(host, subject.drive) == "nvme"

    def back() -> bool:
        found = observe_function(host, subject.drive).drive
        return found is not None and found.serial == subject.serial and len(found.namespaces) == 1

    assert host.wait_until(back, deadline=30)


def test_an_override_of_a_driver_that_is_not_there_leaves_the_function_alone(subject: Subject) -> None:
    host, base = subject.host, subject.drive.sysfs
    host.write_text(f"{base}/driver_override", "no-such-driver")
    host.write_text(f"{base}/driver/unbind", str(subject.drive))
    host.write_text("/sys/bus/pci/drivers_probe", str(subject.drive))
    assert driver_of(host, subject.drive) == ""
    assert hand_over(host, subject.drive, driver="nvme", override="") == ""
    assert observe_function(host, subject.drive).override == ""
    assert_back(subject)


def test_words_to_the_wrong_driver_are_refused(subject: Subject, vfio: None) -> None:  # noqa: ARG001
    host = subject.host
    with refused(errno.ENODEV):
        host.write_text("/sys/bus/pci/drivers/vfio-pci/unbind", str(subject.drive))
    with refused(errno.ENODEV):
        host.write_text("/sys/bus/pci/drivers/vfio-pci/bind", str(subject.drive))
    with refused(errno.ENODEV):
        host.write_text("/sys/bus/pci/drivers_probe", "0000:ff:1f.7")
    assert driver_of(host, subject.drive) == "nvme"


def test_a_driver_takes_what_waits_for_it_when_its_module_is_loaded(subject: Subject) -> None:
    host, base = subject.host, subject.drive.sysfs
    host.write_text(f"{base}/driver_override", "vfio-pci")
    host.write_text(f"{base}/driver/unbind", str(subject.drive))
    operation, reversal = LoadModuleOperation(), UnloadModuleReversal()
    step = LoadModule(name="vfio-pci")
    found = operation.observe(host, step)
    operation.perform(host, step, found, lambda _: None)
    assert driver_of(host, subject.drive) == "vfio-pci"
    inverse = operation.inverse(step, found, None)
    assert inverse is not None
    outcome = reversal.perform(host, inverse, reversal.observe(host, inverse))
    assert outcome.fate is Fate.KEPT
    assert f"vfio_pci drives {subject.drive}" in outcome.why
    hand_over(host, subject.drive, driver="nvme", override="")
    assert_back(subject)
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.PUT_BACK


def test_bind_and_restore(subject: Subject, vfio: None) -> None:  # noqa: ARG001
    host, step = subject.host, bind_step(subject)
    operation, reversal = BindDriverOperation(), RestoreDriverReversal()
    found = operation.observe(host, step)
    operation.check(host, step, found)
    operation.perform(host, step, found, lambda _: None)
    assert driver_of(host, subject.drive) == "vfio-pci"
    assert observe_function(host, subject.drive).override == "vfio-pci"
    assert host.exists(f"/dev/vfio/{found.group}")
    inverse = operation.inverse(step, found, None)
    with subject.opened(f"/dev/vfio/{found.group}") as pid:
        outcome = reversal.perform(host, inverse, reversal.observe(host, inverse))
        assert outcome.fate is Fate.FAILED
        assert str(pid) in outcome.why
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.PUT_BACK
    assert observe_function(host, subject.drive).override == ""
    assert_back(subject)
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.ALREADY


def test_a_driver_that_refuses_leaves_the_drive_where_it_was(subject: Subject) -> None:
    """No such driver is loaded: nothing takes the function, and it goes back."""
    host, step = subject.host, bind_step(subject, driver="uio_pci_generic")
    operation = BindDriverOperation()
    found = operation.observe(host, step)
    with pytest.raises(HostError, match="did not take"):
        operation.perform(host, step, found, lambda _: None)
    assert_back(subject)


def test_an_open_drive_is_refused_with_the_process(subject: Subject) -> None:
    host, step = subject.host, bind_step(subject)
    operation = BindDriverOperation()
    found = operation.observe(host, step)
    assert found.drive is not None
    with (
        subject.opened(f"/dev/{found.drive.namespaces[0].name}") as pid,
        pytest.raises(Refused, match=str(pid)),
    ):
        operation.check(host, step, found)
    operation.check(host, step, found)


def test_a_changed_override_is_noticed(subject: Subject) -> None:
    host, step = subject.host, bind_step(subject)
    host.write_text(f"{subject.drive.sysfs}/driver_override", "other")
    operation = BindDriverOperation()
    with pytest.raises(HostError, match="driver_override was '' and is 'other'"):
        operation.check(host, step, operation.observe(host, step))
    host.write_text(f"{subject.drive.sysfs}/driver_override", "\n")


def test_an_exclusive_claim(subject: Subject) -> None:
    found = observe_function(subject.host, subject.drive)
    assert found.drive is not None
    assert subject.host.claim_exclusively(f"/dev/{found.drive.namespaces[0].name}")
    assert not subject.host.claim_exclusively(subject.mounted_node)


def assert_back(subject: Subject) -> None:
    def back() -> bool:
        found = observe_function(subject.host, subject.drive).drive
        return found is not None and found.serial == subject.serial and len(found.namespaces) == 1

    assert subject.host.wait_until(back, deadline=30)


# --- modules


def test_modules_come_with_what_they_need_and_go_in_the_other_order(subject: Subject) -> None:
    host = subject.host
    assert "vfio_pci" not in loaded_modules(host)
    operation, reversal = LoadModuleOperation(), UnloadModuleReversal()
    step = LoadModule(name="vfio-pci")
    found = operation.observe(host, step)
    assert found.missing[-1] == "vfio_pci"
    assert {"vfio", "vfio_pci_core"} <= set(found.missing)
    operation.perform(host, step, found, lambda _: None)
    loaded = loaded_modules(host)
    assert set(found.missing) <= loaded.keys()
    assert "vfio_pci" in loaded["vfio_pci_core"][1]
    with refused(errno.EAGAIN, errno.EBUSY):
        host.unload_module("vfio_pci_core")
    inverse = operation.inverse(step, found, None)
    assert inverse is not None
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.PUT_BACK
    assert not set(found.missing) & loaded_modules(host).keys()
    with refused(errno.ENOENT):
        host.unload_module("vfio_pci")


def test_there_is_no_such_module(subject: Subject) -> None:
    with pytest.raises(HostError, match="no kernel module no_such_module"):
        LoadModuleOperation().observe(subject.host, LoadModule(name="no_such_module"))


# --- hugepages


def test_pages_are_added_and_taken_away(subject: Subject) -> None:
    host, operation, reversal = subject.host, ReserveHugepagesOperation(), ReleaseHugepagesReversal()
    step = ReserveHugepages(node=0, page_size=PAGE, pages=4)
    found = operation.observe(host, step)
    operation.perform(host, step, found, lambda _: None)
    now = observe_pool(host, 0, PAGE)
    assert (now.total, now.free, now.surplus) == (found.total + 4, found.free + 4, found.surplus)
    inverse = operation.inverse(step, found, None)
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.PUT_BACK
    assert observe_pool(host, 0, PAGE) == found


def test_pages_in_use_stay_and_are_named(subject: Subject) -> None:
    host, operation, reversal = subject.host, ReserveHugepagesOperation(), ReleaseHugepagesReversal()
    step = ReserveHugepages(node=0, page_size=PAGE, pages=4)
    found = operation.observe(host, step)
    operation.perform(host, step, found, lambda _: None)
    inverse = operation.inverse(step, found, None)
    with subject.pages_in_use(3):
        start = reversal.observe(host, inverse)
        outcome = reversal.perform(host, inverse, start)
        assert outcome.fate is Fate.FAILED
        assert "3 of 4 hugepages of 2MiB" in outcome.why
        assert observe_pool(host, 0, PAGE).surplus == found.surplus
    left = reversal.resume(inverse, start, reversal.observe(host, inverse))
    assert left.pages == 3
    assert reversal.perform(host, left, reversal.observe(host, left)).fate is Fate.PUT_BACK
    assert observe_pool(host, 0, PAGE) == found


def test_a_count_below_what_is_used_makes_surplus(subject: Subject) -> None:
    host, base = subject.host, pool_directory(subject.host, 0, PAGE)
    before = observe_pool(host, 0, PAGE)
    host.write_text(f"{base}/nr_hugepages", str(before.total + 2))
    with subject.pages_in_use(2):
        host.write_text(f"{base}/nr_hugepages", str(before.total))
        now = observe_pool(host, 0, PAGE)
        assert (now.total, now.surplus) == (before.total, before.surplus + 2)
    assert host.wait_until(lambda: observe_pool(host, 0, PAGE) == before, deadline=5)


def test_too_many_pages_are_explained_and_given_back(subject: Subject) -> None:
    host, operation = subject.host, ReserveHugepagesOperation()
    step = ReserveHugepages(node=0, page_size=PAGE, pages=100_000)
    found = operation.observe(host, step)
    with pytest.raises(HostError, match=r"only \d+ of 100000 hugepages of 2MiB could be reserved on node 0"):
        operation.perform(host, step, found, lambda _: None)
    assert observe_pool(host, 0, PAGE) == found


def test_a_page_size_that_is_not_there(subject: Subject) -> None:
    with pytest.raises(HostError, match="no hugepages of 4MiB"):
        observe_pool(subject.host, 0, 2 * PAGE)


# --- mounts and files


def test_mount_and_unmount(subject: Subject) -> None:
    host, target = subject.host, f"{subject.directory}/a huge mount"
    host.mkdir(target)
    operation, reversal = MountHugetlbfsOperation(), UnmountReversal()
    step = MountHugetlbfs(target=target, page_size=PAGE)
    found = operation.observe(host, step)
    assert found.fstype == ""
    operation.check(host, step, found)
    operation.perform(host, step, found, lambda _: None)
    assert observe_mount(host, target).fstype == "hugetlbfs"
    assert "pagesize=2M" in observe_mount(host, target).options
    with refused(errno.EBUSY):
        host.rmdir(target)
    again = operation.observe(host, step)
    operation.check(host, step, again)
    assert operation.inverse(step, again, None) is None
    inverse = operation.inverse(step, found, None)
    assert inverse is not None
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.PUT_BACK
    assert reversal.perform(host, inverse, reversal.observe(host, inverse)).fate is Fate.ALREADY
    with refused(errno.EINVAL):
        host.umount(target)
    host.rmdir(target)


def test_files_and_directories(subject: Subject) -> None:
    host, base = subject.host, f"{subject.directory}/files"
    host.mkdir(base)
    with refused(errno.EEXIST):
        host.mkdir(base)
    with refused(errno.ENOENT):
        host.mkdir(f"{base}/no/deeper")
    host.create_file(f"{base}/a", b"text")
    host.chown(f"{base}/a", 7, 8)
    assert (host.stat(f"{base}/a").uid, host.stat(f"{base}/a").gid) == (7, 8)
    with refused(errno.EEXIST):
        host.create_file(f"{base}/a", b"other")
    host.link(f"{base}/a", f"{base}/b")
    with refused(errno.EEXIST):
        host.link(f"{base}/a", f"{base}/b")
    assert host.stat(f"{base}/a").inode == host.stat(f"{base}/b").inode
    before = host.stat(f"{base}/a")
    assert (before.kind, before.size, before.mode) == ("file", 4, 0o600)
    host.wait_until(lambda: False, deadline=0.02)  # a file system's clock may tick as slowly as the timer
    host.write_text(f"{base}/b", "TE")
    assert host.read_text(f"{base}/a") == "TExt"
    assert host.stat(f"{base}/a").mtime_ns != before.mtime_ns
    host.create_sparse(f"{base}/c", 1 << 20)
    assert (host.stat(f"{base}/c").size, host.stat(f"{base}/c").allocated) == (1 << 20, 0)
    with refused(errno.ENOTEMPTY):
        host.rmdir(base)
    with refused(errno.EISDIR):
        host.unlink(base)
    assert host.listdir(base) == ["a", "b", "c"]
    for name in "abc":
        host.unlink(f"{base}/{name}")
    with refused(errno.ENOENT):
        host.unlink(f"{base}/a")
    with refused(errno.ENOENT):
        host.write_text(f"{base}/a", "never creates")
    host.rmdir(base)


# --- processes


def test_processes_and_sockets(subject: Subject) -> None:
    host, base = subject.host, f"{subject.directory}/p"
    host.mkdir(base)
    descriptor = host.listen(f"{base}/s")
    assert (host.stat(f"{base}/s").kind, host.stat(f"{base}/s").mode) == ("socket", 0o600)
    with refused(errno.EADDRINUSE):
        host.listen(f"{base}/s")
    pid = host.spawn(
        ["sleep", "60"], log=f"{base}/log", descriptors={10: descriptor}, environment={"NVLANE_TOKEN": "conformance"}
    )
    host.close(descriptor)
    start_time = start_time_of(host, pid)
    assert start_time is not None
    assert [process.pid for process in find_by_token(host, "conformance")] == [pid]
    assert host.read_bytes(f"/proc/{pid}/cmdline") == b"sleep\x0060\x00"
    assert host.stat(f"{base}/log").mode == 0o600
    assert not host.wait_end(pid, start_time, deadline=0.05)
    assert host.signal(pid, start_time, signal.SIGTERM)
    assert host.wait_end(pid, start_time, deadline=10)
    assert not host.signal(pid, start_time, signal.SIGTERM)
    assert start_time_of(host, pid) is None
    assert find_by_token(host, "conformance") == ()
    for name in ("s", "log"):
        host.unlink(f"{base}/{name}")
    host.rmdir(base)
