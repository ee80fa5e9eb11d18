"""Bad parameters of every kind: the right error code, and the configuration is what it was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_peer import Bare, Peer, Refused, Wire
from target_process import Target

#: A call that each method would take; the files and names are there.
GOOD: Final[dict[str, dict[str, Any]]] = {
    "bdev_malloc_create": {"name": "New", "num_blocks": 8, "block_size": 512},
    "bdev_malloc_delete": {"name": "M"},
    "bdev_malloc_resize": {"name": "M", "new_size": 1},
    "bdev_null_create": {"name": "New", "num_blocks": 8, "block_size": 512},
    "bdev_null_delete": {"name": "N"},
    "bdev_null_resize": {"name": "N", "new_size": 2},
    "bdev_aio_create": {"name": "New", "filename": "/dev/zero"},
    "bdev_aio_delete": {"name": "A"},
    "bdev_aio_rescan": {"name": "A"},
    "bdev_uring_create": {"name": "New", "filename": "/dev/zero"},
    "bdev_uring_delete": {"name": "A"},
    "bdev_uring_rescan": {"name": "A"},
    "bdev_error_create": {"base_name": "N"},
    "bdev_error_delete": {"name": "E"},
    "bdev_error_inject_error": {"name": "E", "io_type": "read", "error_type": "failure"},
    "bdev_error_resume_pending": {"name": "E"},
    "bdev_delay_create": {
        "name": "New", "base_bdev_name": "N", "avg_read_latency": 1, "p99_read_latency": 1, "avg_write_latency": 1,
        "p99_write_latency": 1,
    },
    "bdev_delay_delete": {"name": "D"},
    "bdev_delay_update_latency": {"delay_bdev_name": "D", "latency_type": "avg_read", "latency_us": 1},
    "bdev_set_qos_limit": {"name": "M", "rw_ios_per_sec": 1000},
    "bdev_nvme_attach_controller": {"name": "New", "trtype": "PCIe", "traddr": "0000:ff:1f.7"},
    "bdev_nvme_detach_controller": {"name": "New"},
    "vhost_create_blk_controller": {"ctrlr": "new", "dev_name": "N"},
    "vhost_create_scsi_controller": {"ctrlr": "new"},
    "vhost_start_scsi_controller": {"ctrlr": "s0"},
    "vhost_scsi_controller_add_target": {"ctrlr": "s0", "scsi_target_num": 3, "bdev_name": "N"},
    "vhost_scsi_controller_remove_target": {"ctrlr": "s0", "scsi_target_num": 0},
    "vhost_controller_set_coalescing": {"ctrlr": "b0", "delay_base_us": 1, "iops_threshold": 1},
    "vhost_delete_controller": {"ctrlr": "b0"},
    "framework_get_config": {"name": "bdev"},
    "spdk_kill_instance": {"sig_name": "SIGTERM"},
    "log_set_flag": {"flag": "vhost"},
    "log_set_level": {"level": "DEBUG"},
}  # fmt: skip

#: How SPDK answers what it cannot decode: module/bdev/*, lib/vhost/vhost_rpc.c, lib/event, lib/init.
REFUSAL: Final = {"vhost": (-32602, "Invalid argument"), "spdk": (-32602, "Invalid parameters")}


#: Left out, these are no mistake.
OPTIONAL: Final = {("bdev_malloc_create", "name"), ("bdev_set_qos_limit", "rw_ios_per_sec")}


def refusal(method: str) -> tuple[int, str]:
    if method.startswith("bdev_error"):
        return -32602, "spdk_json_decode_object failed"
    if method == "framework_get_config":
        return -32602, "Invalid arguments"
    return REFUSAL.get(method.partition("_")[0], (-32603, "spdk_json_decode_object failed"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("bad")
    with Bare(directory, "-s", "64", "--allow-path", str(directory)) as running:
        peer = Peer(running)
        peer("bdev_malloc_create", name="M", num_blocks=2048, block_size=512)
        peer("bdev_null_create", name="N", num_blocks=2048, block_size=512)
        peer("vhost_create_blk_controller", ctrlr="b0", dev_name="M")
        peer("vhost_create_scsi_controller", ctrlr="s0")
        peer("vhost_scsi_controller_add_target", ctrlr="s0", scsi_target_num=0, bdev_name="N")
        yield running


@pytest.fixture
def peer(target: Target) -> Iterator[Peer]:
    """Whatever a test asks for, nothing may have changed afterwards."""
    asking = Peer(target)
    before = asking.saved(), asking("bdev_get_bdevs"), asking("vhost_get_controllers")
    yield asking
    assert (asking.saved(), asking("bdev_get_bdevs"), asking("vhost_get_controllers")) == before
    asking.client.close()


def ways_to_spoil(method: str, good: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "no parameters", None
    yield "positional", list(good.values())
    yield "an empty object", {}
    if method != "vhost_create_blk_controller":  # SPDK decodes that one relaxed
        yield "an unknown key", {**good, "bogus": 1}
    for key, value in good.items():
        if (method, key) not in OPTIONAL:
            yield f"{key} left out", {other: given for other, given in good.items() if other != key}
        yield f"{key} is null", {**good, key: None}
        wrong = [True, [], {}, -3 if isinstance(value, int) else 3, "x" if isinstance(value, int) else 1.5]
        for other in wrong:
            yield f"{key} is {other!r}", {**good, key: other}


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("method", GOOD)
def test_what_cannot_be_decoded_is_refused_as_spdk_does(target: Target, method: str) -> None:
    wire = Wire(target)
    for what, params in ways_to_spoil(method, GOOD[method]):
        reply = wire.call(method, params)
        error = reply.get("error", {})
        assert (error.get("code"), error.get("message")) == refusal(method), f"{what}: {reply}"
    wire.socket.close()


@pytest.mark.usefixtures("peer")
def test_a_key_that_is_given_twice(target: Target) -> None:
    wire = Wire(target)
    wire.send('{"method":"bdev_null_create","params":{"name":"a","name":"b","num_blocks":8,"block_size":512},"id":1}')
    assert wire.reply()["error"]["code"] == -32603
    wire.send('{"method":"construct_aio_bdev","params":{"name":"a","fname":"/x","filename":"/x"},"id":1}')
    assert wire.reply()["error"]["code"] == -32603


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("bdev_malloc_create", {"num_blocks": 0, "block_size": 512}, -22),
        ("bdev_malloc_create", {"num_blocks": 8, "block_size": 0}, -22),
        ("bdev_malloc_create", {"num_blocks": 8, "block_size": 1536}, -22),
        ("bdev_malloc_create", {"num_blocks": 8, "block_size": 512, "physical_block_size": 100}, -22),
        ("bdev_malloc_create", {"num_blocks": 8, "block_size": 512, "md_size": 8}, -22),
        ("bdev_malloc_create", {"num_blocks": 8, "block_size": 512, "uuid": "nonsense"}, -32603),
        ("bdev_malloc_create", {"num_blocks": 2**64 - 1, "block_size": 4096}, -22),
        ("bdev_malloc_create", {"num_blocks": 2**20, "block_size": 4096}, -12),
        ("bdev_malloc_create", {"name": "", "num_blocks": 8, "block_size": 512}, -22),
        ("bdev_malloc_resize", {"name": "M", "new_size": 0}, -22),
        ("bdev_malloc_resize", {"name": "M", "new_size": 2**40}, -12),
        ("bdev_malloc_resize", {"name": "M", "new_size": 2**63}, -22),
        ("bdev_malloc_resize", {"name": "N", "new_size": 1}, -19),
        ("bdev_null_resize", {"name": "M", "new_size": 1}, -22),
        ("bdev_null_resize", {"name": "N", "new_size": 2**64 - 1}, -22),
        ("bdev_aio_create", {"name": "X", "filename": "/nonexistent/x"}, -2),
        ("bdev_delay_update_latency", {"delay_bdev_name": "x", "latency_type": "avg_read", "latency_us": 1}, -32602),
        ("bdev_set_qos_limit", {"name": "x", "rw_ios_per_sec": 1}, -19),
        ("bdev_get_bdevs", {"name": "x", "timeout": 1}, -110),
        ("bdev_get_iostat", {"reset_mode": "some"}, -32603),
        ("vhost_create_blk_controller", {"ctrlr": "b0", "dev_name": "N"}, -32602),
        ("vhost_create_blk_controller", {"ctrlr": "x", "dev_name": "N", "cpumask": "0x80000000"}, -32602),
        ("vhost_create_blk_controller", {"ctrlr": "x", "dev_name": "N", "cpumask": "zebra"}, -32602),
        ("vhost_scsi_controller_add_target", {"ctrlr": "b0", "scsi_target_num": 0, "bdev_name": "N"}, -32602),
        ("vhost_scsi_controller_add_target", {"ctrlr": "s0", "scsi_target_num": 0, "bdev_name": "M"}, -32602),
        ("vhost_start_scsi_controller", {"ctrlr": "b0"}, -32602),
        ("bdev_nvme_attach_controller", {"name": "D", "trtype": "PCIe", "traddr": "05:00.0", "max_bdevs": 0}, -22),
        ("bdev_nvme_attach_controller", {"name": "D", "trtype": "carrier pigeon", "traddr": "x"}, -22),
        ("framework_get_config", {"name": "nvmf"}, -32602),
        ("log_get_level", {}, -32602),
        ("framework_start_init", {}, -1),
        ("save_config", {}, -32601),
    ],
)
def test_what_is_decoded_and_makes_no_sense(target: Target, method: str, params: Any, code: int) -> None:
    reply = Wire(target).call(method, params)
    assert reply.get("error", {}).get("code") == code, reply


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=8)
    | st.sampled_from(["M", "N", "s0", "b0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from([m for m in GOOD if m.endswith("_create")]), seed=st.integers(0, 2**32), value=_JSON)
def test_a_wrong_value_anywhere_makes_nothing(peer: Peer, method: str, seed: int, value: Any) -> None:
    key = random.Random(seed).choice(list(GOOD[method]))
    if method.startswith("bdev_error") or (key in ("name", "filename") and isinstance(value, str)):
        return
    try:
        peer(method, {**GOOD[method], key: value})
    except Refused as refused:
        assert refused.code in (-32603, -32602, -22, -17, -19, -12)
    else:
        # A number that fits: then it was made, and goes again.
        assert isinstance(value, (int, str)), json.dumps(value)
        peer(method.replace("_create", "_delete"), name="New")
