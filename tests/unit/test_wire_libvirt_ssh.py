"""URIs with ssh in them: what they say, what ssh is told, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nvlane.cli.elsewhere_files import lane_text, spec_text
from nvlane.cli.service.up import SpecFile
from nvlane.model.errors import HostError, SpecError
from nvlane.wire.libvirt_ssh import SshUri

SPEC = """[machine]
name = "vm"
connect = "qemu+ssh://Box/system"

[[lane]]
kind = "emulated"
namespaces = [{ image = "/srv/a.qcow2", size = "64MiB" }]
"""


def _parsed(uri: str) -> SshUri:
    there = SshUri.parse(uri)
    assert there is not None
    return there


def _options(uri: str) -> list[str]:
    """Without those that every call has, and without the command."""
    words = _parsed(uri).argv("status")
    return words[words.index("ServerAliveCountMax=4") + 1 : -1]


def test_what_it_says() -> None:
    there = _parsed("qemu+ssh://me%40work@Box:2222/session?keyfile=/k&no_verify=1&command=/bin/ssh&no_tty=1")
    assert (there.host, there.user, there.port, there.local) == ("Box", "me@work", 2222, "qemu:///session")
    assert (there.ssh, there.keyfile, there.verify) == ("/bin/ssh", "/k", False)


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("qemu+ssh://box/system", ["--", "box"]),
        ("qemu+ssh://root@box:22/system", ["-p", "22", "-l", "root", "--", "box"]),
        ("qemu+ssh://[fe80::1]:22/system", ["-p", "22", "--", "fe80::1"]),
        ("qemu+ssh://box/system?keyfile=/k&netcat=nc", ["-i", "/k", "--", "box"]),
        ("qemu+ssh://box/system?known_hosts=/h", ["-o", "UserKnownHostsFile=/h", "--", "box"]),
        ("qemu+ssh://box/system?no_verify=1", ["-o", "StrictHostKeyChecking=no", "--", "box"]),
    ],
)
def test_what_ssh_is_told(uri: str, options: list[str]) -> None:
    assert _options(uri) == options


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu+tls://box/system", "test:///default", ""])
def test_others_are_not_ours(uri: str) -> None:
    assert SshUri.parse(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh:///system",
        "qemu+ssh://-oProxyCommand=id/system",
        "qemu+ssh://box/embed",
        "qemu+ssh://box:port/system",
        "xen+ssh://box/system",
        "qemu+ssh://box/system?socket=/s",
    ],
)
def test_what_is_refused(uri: str) -> None:
    with pytest.raises(HostError) as said:
        SshUri.parse(uri)
    assert said.value.remedy


def test_words_arrive_whole_and_a_profile_does_not_disturb(tmp_path: Path) -> None:
    """The remote command, run by a shell here, with a profile that prints and reads."""
    (tmp_path / "nvlane").write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\ncat\n")
    (tmp_path / "nvlane").chmod(0o755)
    (tmp_path / ".profile").write_text(f"echo welcome; cat; PATH={tmp_path}:$PATH\n")
    words = ["attach", "a b", "it's", "$HOME", ""]
    command = _parsed("qemu+ssh://box/system").argv(*words)[-1]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", command], input="text", capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    assert done.stdout == "<attach><a b><it's><$HOME><>text"
    assert "welcome" in done.stderr


def test_files_for_another_host() -> None:
    file = SpecFile(path="vm.toml", directory="/here", text=SPEC)
    there = _parsed("qemu+ssh://Box/system")
    assert spec_text(file, there) == SPEC.replace("qemu+ssh://Box/system", "qemu:///system")
    relative = SpecFile(path="vm.toml", directory="/here", text=SPEC.replace("/srv/a", "a"))
    with pytest.raises(SpecError, match=r"vm.toml: lane\[0\].namespaces\[0\].image: 'a.qcow2' is a relative path"):
        spec_text(relative, there)
    lane = SpecFile(path="a.toml", directory="/here", text=SPEC.partition("\n\n")[2].replace("/srv/", "../"))
    with pytest.raises(SpecError, match=r"'\.\./a\.qcow2' is a relative path"):
        lane_text(lane)
