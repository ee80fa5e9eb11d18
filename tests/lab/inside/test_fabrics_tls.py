"""NVMe over TCP with TLS: a guest that writes and a Target that reads over a wire that shows nothing; and what is said
when one of the two ends has no TLS, no key or another key."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, machine, nvlane, unchanged, write_spec
from fabric_room import FIRST, NQN, export, exported, fabrics_lane, networks, target_files
from tls_room import daemons, listening, make_key

from nvlane.verify.pattern import pattern

pytestmark = pytest.mark.lab
SEED = 1859
CONNECT = ("fabrics", "connect", "c", "--nqn", NQN, "--address", FIRST)
#: The Host's end of the wire.
WIRE = "host0"


@pytest.fixture(scope="module", autouse=True)
def apart() -> Iterator[None]:
    with networks():
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def files(work: Path) -> list[Path]:
    return target_files(work)


@pytest.fixture(scope="module")
def keys(work: Path) -> list[Path]:
    return [make_key(work / f"key{number}") for number in range(2)]


@pytest.fixture(scope="module")
def tls(work: Path) -> Iterator[None]:
    with daemons(work):
        yield


def _refused(*words: str | Path, status: int = 1) -> str:
    """A connection that fails and leaves nothing; what was said, which is no key."""
    with unchanged():
        said = nvlane(*CONNECT, *words)
    assert said.status == status, str(said)
    assert "NVMeTLSkey-1:0" not in said.err + said.out
    return said.err


def test_nobody_would_do_the_handshakes(files: list[Path], keys: list[Path]) -> None:
    with unchanged():
        said = export("--file", files[0], "--address", FIRST, "--tls-key", keys[0])
    assert said.status == 3, str(said)
    assert "no process tlshd in this network name space" in said.err
    assert "install and start tlshd" in _refused("--tls-key", keys[0], status=3)


@pytest.mark.usefixtures("tls")
def test_a_guest_over_tls_and_nothing_on_the_wire(files: list[Path], keys: list[Path], tmp_path: Path) -> None:
    data = pattern(SEED, MIB)
    with exported("--file", files[0], "--address", FIRST, "--tls-key", keys[0]):
        lane = fabrics_lane("secret", address=FIRST, tls=True, tls_key=str(keys[0]))
        with machine(write_spec(tmp_path, "tls", lane)) as running:
            assert running.wrong() == []
            device = next(piece["claim"].split()[0] for piece in running.value["evidence"])
            with listening(WIRE) as ear, running.guest() as guest:
                guest.call("write_pattern", deadline=120.0, device=device, offset=8 * MIB, length=MIB, seed=SEED)
        assert _at_target(files[0]) == data
        assert len(ear.heard) > MIB
        assert ear.seen(data) == 0
    with exported("--file", files[1], "--address", FIRST):
        shown = nvlane(*CONNECT, "--json").ok().json
        with listening(WIRE) as ear:
            _write(shown["namespaces"][0]["device"], data)
        nvlane("fabrics", "disconnect", "c").ok()
        assert _at_target(files[1]) == data
        assert ear.seen(data) > 0, "the ear hears nothing of what goes by in the clear"


def _at_target(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(8 * MIB)
        return opened.read(MIB)


def _write(device: str, data: bytes) -> None:
    """Past the page cache, for which memory has to be aligned."""
    with mmap.mmap(-1, len(data)) as memory:
        memory[:] = data
        descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
        try:
            assert os.pwrite(descriptor, memory, 8 * MIB) == len(data)
        finally:
            os.close(descriptor)


@pytest.mark.usefixtures("tls")
def test_why_a_host_cannot_connect_to_a_target_with_tls(files: list[Path], keys: list[Path], tmp_path: Path) -> None:
    with exported("--file", files[0], "--address", FIRST, "--tls-key", keys[0]):
        # One kernel here is both ends: a key that the Target has for this host would be found.
        stranger = ("--host-nqn", "nqn.2014-08.org.example:stranger")
        assert "has no TLS key for this host and subsystem" in _refused("--tls", *stranger)
        assert "the TLS handshake failed" in _refused("--tls-key", keys[1])
        assert "as one does that wants TLS" in _refused()
        broken = tmp_path / "broken"
        broken.write_text(keys[0].read_text().replace("NVMeTLSkey-1:01:", "NVMeTLSkey-1:01:AAAA"))
        broken.chmod(0o600)
        assert "holds no TLS key of NVMe" in _refused("--tls-key", broken)
        broken.chmod(0o644)
        assert "can be read by others" in _refused("--tls-key", broken, status=3)
    with exported("--file", files[0], "--address", FIRST):
        assert "the TLS handshake failed" in _refused("--tls-key", keys[0])
