"""What `nvlane fabrics export` would do: its steps in order, and every reason not to."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from plan_case import base_facts

from nvlane.facts.shape import ExportedSubsystem, ExportPort, Fabrics, Facts, PathFacts, Use, UseKind
from nvlane.model.codec import decode, encode
from nvlane.model.fabrics import FabricPath, Transport, namespace_uuid
from nvlane.plan import step as steps
from nvlane.plan.export import WantedExport, default_nqn, make_export_plan
from nvlane.plan.fabrics_step import AddTlsKey, LinkConfigNode, MakeConfigNode, MountConfigfs
from nvlane.plan.plan import Plan

NQN = "nqn.2014-08.org.example:disks"
HOST = "nqn.2014-08.org.example:host"
NVMET = "/sys/kernel/config/nvmet"
TCP = FabricPath(transport=Transport.TCP, address="10.0.0.2", service="4420")
WANTED = WantedExport(name="disks", nqn=NQN, paths=(TCP,), files=("/srv/a.raw",), hosts=(HOST,))


def facts(**changes: Any) -> Facts:
    file = PathFacts(path="/srv/a.raw", kind="file", size=1 << 30, format="raw", filesystem="ext4")
    return dataclasses.replace(base_facts("storage-client"), paths=(file,), **changes)


def planned(seen: Facts | None = None, **changes: Any) -> Plan:
    return make_export_plan(dataclasses.replace(WANTED, **changes), seen or facts())


def test_the_port_is_opened_last() -> None:
    plan = planned()
    assert not plan.refusals
    made = [step for step in plan.steps if isinstance(step, MakeConfigNode | LinkConfigNode)]
    assert [step.path.removeprefix(f"{NVMET}/") for step in made] == [
        f"subsystems/{NQN}",
        f"subsystems/{NQN}/namespaces/1",
        f"hosts/{HOST}",
        f"subsystems/{NQN}/allowed_hosts/{HOST}",
        "ports/1",
        f"ports/1/subsystems/{NQN}",
    ]
    namespace = made[1]
    assert isinstance(namespace, MakeConfigNode)
    assert namespace.attributes == (
        ("device_path", "/srv/a.raw"),
        ("device_uuid", namespace_uuid(NQN, 1)),
        ("enable", "1"),
    )


def test_its_steps_survive_the_journal() -> None:
    plan = planned(secret="/root/key")
    assert {type(step) for step in plan.steps} >= {MountConfigfs, MakeConfigNode, LinkConfigNode}
    for step in plan.steps:
        assert decode(steps.Step, json.loads(json.dumps(encode(step)))) == step  # type: ignore[arg-type]


def test_an_address_that_has_a_port_shares_it_and_another_gets_the_next_number() -> None:
    ports = (ExportPort(number=1, transport="tcp", address="10.0.0.9", service="4420"),
             ExportPort(number=3, transport="tcp", address="10.0.0.2", service="4420"))  # fmt: skip
    other = dataclasses.replace(TCP, address="10.0.1.2")
    plan = planned(facts(fabrics=Fabrics(ports=ports)), paths=(TCP, other))
    made = [step.path for step in plan.steps if isinstance(step, MakeConfigNode) and "/ports/" in step.path]
    assert made == [f"{NVMET}/ports/3", f"{NVMET}/ports/2"]


def test_with_tls_the_keys_are_there_before_the_port() -> None:
    seen = facts(fabrics=Fabrics(tls_daemon=True, tls_keyring=True))
    plan = planned(seen, tls=True, tls_key="/root/tls", hosts=(HOST, f"{HOST}2"))
    words = [step.describe() for step in plan.steps]
    port = next(i for i, step in enumerate(plan.steps) if isinstance(step, MakeConfigNode) and "/ports/" in step.path)
    keys = [i for i, step in enumerate(plan.steps) if isinstance(step, AddTlsKey) and step.keyring == ".nvme"]
    assert len(keys) == 2, words
    assert max(keys) < port
    made = plan.steps[port]
    assert isinstance(made, MakeConfigNode)
    assert made.attributes[-2:] == (("addr_tsas", "tls1.3"), ("addr_treq", "required"))
    assert not plan.notes
    assert "has to stand in the keyring .nvme" in planned(seen, tls=True).notes[0].text


def test_a_file_without_direct_io_goes_through_the_page_cache() -> None:
    file = PathFacts(path="/dev/shm/a.raw", kind="file", size=1 << 30, format="raw", filesystem="tmpfs")
    plan = planned(dataclasses.replace(facts(), paths=(file,)), files=("/dev/shm/a.raw",))
    namespace = next(step for step in plan.steps if isinstance(step, MakeConfigNode) and "namespaces" in step.path)
    assert ("buffered_io", "1") in namespace.attributes


def test_each_namespace_of_a_drive_is_one_of_the_subsystem() -> None:
    plan = planned(files=(), drive="serial:S4EVFOUR000006")
    drive = next(drive for drive in facts().drives if drive.serial == "S4EVFOUR000006")
    made = [step for step in plan.steps if isinstance(step, MakeConfigNode) and "/namespaces/" in step.path]
    assert [dict(step.attributes)["device_path"] for step in made] == [f"/dev/{ns.name}" for ns in drive.namespaces]


def test_addresses_of_every_transport() -> None:
    def port(path: FabricPath, **changes: Any) -> dict[str, str]:
        plan = planned(paths=(path,), **changes)
        assert not plan.refusals
        made = [step for step in plan.steps if isinstance(step, MakeConfigNode) and "/ports/" in step.path]
        return dict(made[0].attributes)

    assert port(FabricPath(transport=Transport.LOOP)) == {"addr_trtype": "loop"}
    assert port(dataclasses.replace(TCP, address="2001:db8::2"))["addr_adrfam"] == "ipv6"
    fc = FabricPath(transport=Transport.FC, address="nn-0x10001100ab000001:pn-0x20001100ab000001")
    assert port(fc)["addr_adrfam"] == "fc"


def test_an_nqn_of_its_own_stays_the_same() -> None:
    assert default_nqn("server", "disks") == default_nqn("server", "disks") != default_nqn("server", "other")


USED = PathFacts(
    path="/dev/sdb", kind="block", uses=(Use(kind=UseKind.MOUNT, device="sdb", evidence="mounted on /srv"),)
)
TLS = Fabrics(tls_daemon=True, tls_keyring=True)
EXPORTED = Fabrics(subsystems=(ExportedSubsystem(nqn=NQN, any_host=True),))


@pytest.mark.parametrize(
    ("code", "changes", "seen"),
    [
        ("no-source", {"files": ()}, {}),
        ("no-hosts", {"hosts": ()}, {}),
        ("nqn", {"nqn": "disks"}, {}),
        ("nqn-exported", {}, {"fabrics": EXPORTED}),
        ("secret-for-all", {"hosts": (), "any_host": True, "secret": "/root/key"}, {}),
        ("no-tls", {"tls": True}, {}),
        ("no-tls", {"tls": True}, {"fabrics": Fabrics(tls_daemon=True)}),
        ("no-tls", {"tls": True, "paths": (FabricPath(transport=Transport.LOOP),)}, {"fabrics": TLS}),
        ("secret-for-all", {"hosts": (), "any_host": True, "tls": True}, {"fabrics": TLS}),
        ("address", {"paths": (dataclasses.replace(TCP, address="storage"),)}, {}),
        ("address", {"paths": (FabricPath(transport=Transport.FC, address="10.0.0.2"),)}, {}),
        ("address", {"paths": (dataclasses.replace(TCP, address="fe80::1%a,b"),)}, {}),
        ("no-module", {}, {"loadable": ("nvmet",)}),
        ("not-root", {}, {"uid": 1000}),
        ("no-file", {"files": ("/srv/none.raw",)}, {}),
        ("file-size", {"size": 1 << 20}, {}),
        ("file-format", {}, {"paths": (PathFacts(path="/srv/a.raw", kind="file", format="qcow2"),)}),
        ("drive-mount", {"files": ("/dev/sdb",)}, {"paths": (USED,)}),
        ("no-drive", {"files": (), "drive": "serial:NONE"}, {}),
        ("no-namespace", {"files": (), "drive": "serial:S4EVFOUR000006", "namespace": 99}, {}),
    ],
)
def test_refusals(code: str, changes: dict[str, Any], seen: dict[str, Any]) -> None:
    plan = planned(dataclasses.replace(facts(), **seen), **changes)
    assert [refusal.code for refusal in plan.refusals] == [code]
    assert plan.refusals[0].remedy
    assert not plan.steps
