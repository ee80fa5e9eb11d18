"""What the process gives up, what its sockets let in, what it tells a metrics collector."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from rpc_peer import Bare, Peer, Refused
from target_process import Target, program

BLOCKS = {"num_blocks": 2048, "block_size": 512}


def has_landlock(target: Target) -> bool:
    return bool(Peer(target)("nvlane_get_status")["files_confined"])


def status(target: Target, key: str) -> set[str]:
    """A line of /proc/PID/task/*/status, over all threads."""
    tasks = Path(f"/proc/{target.process.pid}/task").iterdir()
    found = (re.search(rf"^{key}:\s*(.*)$", (task / "status").read_text(), re.MULTILINE) for task in tasks)
    return {line.group(1) for line in found if line}


def sized(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return path


def test_all_threads_are_filtered_and_gain_no_privileges(tmp_path: Path) -> None:
    with Bare(tmp_path, "-m", "0x3", "--state", "state.json") as target:
        Peer(target)("bdev_malloc_create", **BLOCKS)
        assert status(target, "Seccomp") == {"2"}
        assert status(target, "NoNewPrivs") == {"1"}
    with Bare(tmp_path, "--no-confine") as target:
        assert status(target, "Seccomp") == {"0"}


def test_a_file_that_nobody_named_is_out_of_reach_and_the_remedy_is_said(tmp_path: Path) -> None:
    outside = sized(tmp_path / "outside.img")
    inside = tmp_path / "run"
    inside.mkdir()
    with Bare(inside, "--allow-path", str(inside)) as target:
        if not has_landlock(target):
            pytest.skip("this kernel has no Landlock")
        peer = Peer(target)
        for path in ("/etc/shadow", "/etc/hostname", str(outside)):
            with pytest.raises(Refused) as refused:
                peer("bdev_aio_create", name="X", filename=path, block_size=512)
            assert refused.value.code == -13
            assert "--allow-path" in refused.value.data
        with pytest.raises(Refused) as refused:
            peer("bdev_uring_create", name="X", filename=str(outside))
        assert (refused.value.code, "--allow-path" in refused.value.data) == (-32603, True)
        # A file that comes later, below what is allowed.
        assert peer("bdev_aio_create", name="A", filename=str(sized(inside / "later.img"))) == "A"
        with pytest.raises(Refused):
            peer("vhost_create_blk_controller", ctrlr="../escaped", dev_name="A")
    with Bare(inside, "--allow-path", str(outside)) as target:
        assert Peer(target)("bdev_aio_create", name="A", filename=str(outside)) == "A"


def test_confined_it_still_does_everything(tmp_path: Path) -> None:
    with Target(tmp_path) as target:
        peer = Peer(target)
        peer("bdev_malloc_create", name="M", num_blocks=65536, block_size=512)
        peer("bdev_uring_create", name="U", filename=str(sized(tmp_path / "u.img")))
        for round_trip in range(3):
            peer("vhost_create_blk_controller", ctrlr=f"b{round_trip}", dev_name="M")
            peer("vhost_delete_controller", ctrlr=f"b{round_trip}")
        assert peer("framework_get_reactors")["reactors"][0]["tid"] > 0
        peer("spdk_kill_instance", sig_name="SIGKILL")
        assert target.process.wait(10) == -signal.SIGKILL


def test_sockets_are_the_owners_unless_a_group_is_named(tmp_path: Path) -> None:
    with Bare(tmp_path) as target:
        assert target.rpc_socket.stat().st_mode & 0o7777 == 0o600
    with Bare(tmp_path, "--socket-group", "12345", "--metrics", "metrics.sock") as target:
        peer = Peer(target)
        peer("bdev_null_create", name="N", **BLOCKS)
        peer("vhost_create_blk_controller", ctrlr="b0", dev_name="N")
        for path in (target.rpc_socket, target.socket("b0"), tmp_path / "metrics.sock"):
            assert (path.stat().st_mode & 0o7777, path.stat().st_gid) == (0o660, 12345)


def test_a_socket_file_is_replaced_only_if_nobody_listens(tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        words = [str(program()), "-S", str(tmp_path), "-r", str(tmp_path / "rpc.sock"), *options]
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stderr

    with Bare(tmp_path) as target:
        assert "another process listens there" in refused()
        assert Peer(target)("log_get_level") == "NOTICE"
        target.kill()
        target.start()
        peer = Peer(target)
        peer("bdev_null_create", name="N", **BLOCKS)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(target.socket("b0")))
            other.listen()
            with pytest.raises(Refused) as told:
                peer("vhost_create_blk_controller", ctrlr="b0", dev_name="N")
            assert "another process listens" in told.value.data
        target.socket("b1").write_text("precious")
        with pytest.raises(Refused):
            peer("vhost_create_blk_controller", ctrlr="b1", dev_name="N")
        assert target.socket("b1").read_text() == "precious"
        assert peer("vhost_create_blk_controller", ctrlr="b0", dev_name="N") is True


def test_sockets_that_listen_already(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as rpc, socket.socket(socket.AF_UNIX) as vhost:
        for listener, name in ((rpc, "rpc.sock"), (vhost, "vm0")):
            listener.bind(str(tmp_path / name))
            listener.listen()
        words = [
            str(program()),
            "-S",
            str(tmp_path),
            "--rpc-fd",
            str(rpc.fileno()),
            "--vhost-fd",
            f"vm0={vhost.fileno()}",
        ]
        process = subprocess.Popen(words, pass_fds=(rpc.fileno(), vhost.fileno()), stderr=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_UNIX) as front_end:
            front_end.connect(str(tmp_path / "vm0"))
        target = Bare.__new__(Bare)
        target.directory, target.process = tmp_path, process
        peer = Peer(target)
        peer("bdev_null_create", name="N", **BLOCKS)
        for _ in range(2):
            assert peer("vhost_create_blk_controller", ctrlr="vm0", dev_name="N") is True
            [found] = peer("vhost_get_controllers")
            assert found["socket"] == str(tmp_path / "vm0")
            assert peer("vhost_delete_controller", ctrlr="vm0") is True
            assert (tmp_path / "vm0").exists(), "it is not ours to remove"
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert (tmp_path / "rpc.sock").exists()


@pytest.mark.parametrize(
    "option", [("--rpc-fd", "77"), ("--vhost-fd", "vm0=77"), ("-m", "0x100000"), ("--user", "nobody else")]
)
def test_what_cannot_be_done_is_said_and_ends_the_start(tmp_path: Path, option: tuple[str, str]) -> None:
    words = [str(program()), "-S", str(tmp_path), "-r", str(tmp_path / "rpc.sock"), *option]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert option[0].lstrip("-") in ended.stderr
    assert not (tmp_path / "rpc.sock").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for directory in (*reversed(list(tmp_path.parents)[:-2]), tmp_path):
        directory.chmod(0o755)
    os.chown(home, 65534, 65534)
    with Bare(home, "--user", "nobody", "--state", str(home / "state.json")) as target:
        assert status(target, "Uid") == {"65534\t65534\t65534\t65534"}
        assert status(target, "CapEff") == {"0" * 16}
        assert target.rpc_socket.stat().st_uid == 65534
        peer = Peer(target)
        peer("bdev_null_create", name="N", **BLOCKS)
        peer("vhost_create_blk_controller", ctrlr="b0", dev_name="N")
        assert "b0" in (home / "state.json").read_text()


def test_a_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Bare(tmp_path, "-f", "target.pid") as target:
            assert manager.recv(100) == b"READY=1"
            assert int((tmp_path / "target.pid").read_text()) == target.process.pid
            assert target.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"


def scrape(path: Path, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer.decode()


#: A line of the text format: a comment, or a name with labels and a value.
_LINE = re.compile(r'# (HELP|TYPE) \w+ .+|\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? [-+.\de]+')


def test_metrics_on_a_socket(tmp_path: Path) -> None:
    with Bare(tmp_path, "--metrics", "metrics.sock") as target:
        peer = Peer(target)
        peer("bdev_null_create", name='odd"name\\', **BLOCKS)
        peer("vhost_create_blk_controller", ctrlr="b0", dev_name='odd"name\\')
        head, _, page = scrape(tmp_path / "metrics.sock").partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        assert f"Content-Length: {len(page)}" in head
        assert not [line for line in page.splitlines() if not _LINE.fullmatch(line)]
        for line in (
            'nvlane_bdev_operations_total{bdev="odd\\"name\\\\",operation="read"} 0',
            'nvlane_controller_sessions{controller="b0",front_end="blk"} 0',
            'nvlane_reactor_queues{cpu="0"} 0',
            "nvlane_target_missing 0",
        ):
            assert line in page
        assert scrape(tmp_path / "metrics.sock", b"POST / HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 405")
        assert scrape(tmp_path / "metrics.sock", b"x" * 9000) == ""
        assert target.stop() == 0
    assert not (tmp_path / "metrics.sock").exists()


def test_metrics_in_a_file(tmp_path: Path) -> None:
    with Bare(tmp_path, "--metrics", str(tmp_path / "nvlane.prom")):
        until = time.monotonic() + 10
        while not (tmp_path / "nvlane.prom").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert "nvlane_target_info{" in (tmp_path / "nvlane.prom").read_text()
        assert (tmp_path / "nvlane.prom").stat().st_mode & 0o777 == 0o644
