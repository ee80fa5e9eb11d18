"""Exports and connections in the in-memory host: what is shared, what is refused, what stays."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apply_runs import Runs

from nvlane.apply.memory import MemoryHost
from nvlane.apply.operations.operation import Fate
from nvlane.apply.store import Store
from nvlane.model.errors import HostError, NvlaneError, Refused
from nvlane.model.tls_psk import tls_psk
from nvlane.plan.fabrics_step import AddTlsKey, BindNamespace, ConnectFabric, MakeConfigNode
from nvlane.plan.step import Step

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))
from random_runs import NQN, NVMET, TLS_KEY, StandIn, fabrics_steps, launchers, make_host

KEY = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:"


@pytest.fixture
def host() -> MemoryHost:
    return make_host()


@pytest.fixture
def runs(host: MemoryHost, tmp_path: Path) -> Iterator[Runs]:
    before = host.state()
    made = Runs(Store(tmp_path / "state", tmp_path / "runtime"), host, launchers(StandIn(host)))
    yield made
    for name in made.store.names():
        made.end(name)
    assert host.state() == before


def test_a_bound_namespace_is_journaled_with_what_the_plan_could_not_know(host: MemoryHost, runs: Runs) -> None:
    runs.begin("vm", fabrics_steps(connected=True))
    assert host.readlink("/run/nvlane/vm/lane0/namespace") == "/dev/nvme40n1"
    bound = runs.store.read("vm").entries[-1].result
    assert (bound.device, bound.size, bound.block_size) == ("/dev/nvme40n1", 64 << 20, 512)  # type: ignore[union-attr]


def test_the_last_of_two_runs_removes_what_both_need(host: MemoryHost, runs: Runs) -> None:
    runs.begin("first", fabrics_steps(connected=False))
    runs.begin("second", fabrics_steps(connected=False))
    report = runs.end("first")
    assert {step.outcome.fate for step in report.steps} == {Fate.KEPT}
    assert host.exists(f"{NVMET}/ports/1/subsystems/{NQN}")
    report = runs.end("second")
    assert {step.outcome.fate for step in report.steps} <= {Fate.PUT_BACK, Fate.ALREADY}
    assert not host.exists(NVMET)


def test_a_node_with_other_settings_is_left_alone(host: MemoryHost, runs: Runs) -> None:
    runs.begin("first", fabrics_steps(connected=False))
    steps = [_with_attribute(step) for step in fabrics_steps(connected=False)]
    with pytest.raises(HostError, match=r"addr_trtype is 'loop' instead of 'tcp'"):
        runs.begin("second", steps)
    assert runs.store.names() == ("first",)
    assert host.exists(f"{NVMET}/ports/1/subsystems/{NQN}")


def _with_attribute(step: Step) -> Step:
    if isinstance(step, MakeConfigNode) and step.path.endswith("ports/1"):
        return dataclasses.replace(step, attributes=(("addr_trtype", "tcp"),))
    return step


def test_what_somebody_else_linked_is_named_and_tried_again(host: MemoryHost, runs: Runs) -> None:
    runs.begin("vm", fabrics_steps(connected=False))
    host.mkdir(f"{NVMET}/ports/2")
    host.symlink(f"{NVMET}/subsystems/{NQN}", f"{NVMET}/ports/2/subsystems/{NQN}")
    report = runs.end("vm")
    assert [step.outcome.fate for step in report.failed] == [Fate.FAILED]
    assert NQN in report.failed[0].text
    host.unlink(f"{NVMET}/ports/2/subsystems/{NQN}")
    host.rmdir(f"{NVMET}/ports/2")
    assert not runs.end("vm").failed


def test_a_namespace_in_use_is_refused_and_a_connection_in_use_stays(host: MemoryHost, runs: Runs) -> None:
    *steps, bind = fabrics_steps(connected=True)
    assert isinstance(bind, BindNamespace)
    runs.begin("vm", steps)
    process = host.hold_open("/dev/nvme40n1")
    with pytest.raises(Refused, match=str(process.pid)):
        runs.extend("vm", [bind])
    report = runs.end("vm")
    assert "disconnect" in report.failed[0].text
    host.processes.end(process.pid)


def test_blocks_of_another_size_are_said_before_anything_opens_them(runs: Runs) -> None:
    steps = list(fabrics_steps(connected=True))
    assert isinstance(steps[-1], BindNamespace)
    steps[-1] = dataclasses.replace(steps[-1], block_size=4096)
    with pytest.raises(HostError, match="blocks of 512 bytes, and the spec says 4096") as raised:
        runs.begin("vm", steps)
    assert raised.value.remedy == "write block_size = 512"


def test_nothing_listens(runs: Runs) -> None:
    steps = [step for step in fabrics_steps(connected=True) if not isinstance(step, MakeConfigNode)]
    steps = [step for step in steps if "link" not in step.describe()]
    with pytest.raises(HostError, match="nothing listens at loop"):
        runs.begin("vm", steps)


def _with_secret(path: str) -> list[Step]:
    return [
        dataclasses.replace(step, secret=path) if isinstance(step, ConnectFabric) else step
        for step in fabrics_steps(connected=True)
    ]


def test_a_key_is_read_from_its_file_and_stands_nowhere_else(host: MemoryHost, runs: Runs) -> None:
    host.tree.add("/srv/key", "file", data=f"{KEY}\n".encode(), mode=0o600)
    said: list[str] = []
    connect = host.fabrics.connect
    host.fabrics.connect = lambda text: said.append(text) or connect(text)  # type: ignore[method-assign,func-returns-value]
    runs.begin("vm", _with_secret("/srv/key"))
    assert f"dhchap_secret={KEY}" in said[0]
    assert "DHHC" not in (runs.store.read("vm").path / "journal.jsonl").read_text()
    runs.end("vm")
    host.unlink("/srv/key")


def _tls_keys(host: MemoryHost) -> list[str]:
    return [line.split()[9] for line in host.read_text("/proc/keys").splitlines() if " psk " in line]


def test_a_tls_key_goes_with_the_last_run_that_needs_it(host: MemoryHost, runs: Runs) -> None:
    runs.begin("first", fabrics_steps(connected=False))
    runs.begin("second", fabrics_steps(connected=False))
    assert _tls_keys(host) == ["nqn.2014-08.org.example:host"]
    secret = host.read_text(TLS_KEY).split(":")[2]
    assert secret not in (runs.store.read("first").path / "journal.jsonl").read_text()
    runs.end("first")
    assert len(_tls_keys(host)) == 1
    runs.end("second")
    assert _tls_keys(host) == []


def test_a_tls_key_that_was_there_stays(host: MemoryHost, runs: Runs) -> None:
    psk = tls_psk(host.read_text(TLS_KEY), "nqn.2014-08.org.example:host", NQN)
    host.add_key(".nvme", "psk", psk.identity, psk.key)
    runs.begin("vm", fabrics_steps(connected=False))
    runs.end("vm")
    assert len(_tls_keys(host)) == 1
    host.unlink_key(".nvme", host.find_key(".nvme", "psk", psk.identity))


def test_a_connection_names_its_tls_key_by_number(host: MemoryHost, runs: Runs) -> None:
    steps: list[Step] = []
    for step in fabrics_steps(connected=True):
        if isinstance(step, ConnectFabric):
            steps.append(AddTlsKey(keyring="@u", host_nqn=step.host_nqn, nqn=NQN, file=TLS_KEY))
            step = dataclasses.replace(step, tls=True, tls_key=TLS_KEY)
        steps.append(step)
    said: list[str] = []
    connect = host.fabrics.connect
    host.fabrics.connect = lambda text: said.append(text) or connect(text)  # type: ignore[method-assign,func-returns-value]
    runs.begin("vm", steps)
    psk = tls_psk(host.read_text(TLS_KEY), "nqn.2014-08.org.example:host", NQN)
    assert f"tls,tls_key={host.find_key('@u', 'psk', psk.identity)}" in said[0]


@pytest.mark.parametrize(
    ("data", "mode", "words"),
    [
        (KEY, 0o644, "can be read by others"),
        ("hunter2", 0o600, "holds no DH-HMAC-CHAP key"),
        ("", 0o600, "holds no DH-HMAC-CHAP key"),
        (None, 0o600, "cannot read the key"),
    ],
)
def test_a_key_that_is_none(host: MemoryHost, runs: Runs, data: str | None, mode: int, words: str) -> None:
    if data is not None:
        host.tree.add("/srv/key", "file", data=data.encode(), mode=mode)
    with pytest.raises(NvlaneError, match=words) as raised:
        runs.begin("vm", _with_secret("/srv/key"))
    assert "hunter2" not in str(raised.value)
    host.tree.remove("/srv/key")
