"""TLS keys of NVMe/TCP: what a configured key becomes, and every way of being none."""

from __future__ import annotations

import base64
import zlib

import pytest

from nvlane.model.tls_psk import tls_psk

HOST, NQN = "nqn.2014-08.org.example:host", "nqn.2014-08.org.example:disks"
SHA256 = bytes.fromhex("1733c59fa7f48fcf37f5f26fc4ff0268ad4f78e030f4f3b0bfd1d47e7bb1447a")
SHA384 = bytes.fromhex(
    "f14b2dd3234c459694d3bc63f8968bd6b37c2c6de849e22e118749001ce4bbe8640b9e3a748cb11ce4b1d71d359cce39"
)


def configured(secret: bytes, number: int = 0) -> str:
    return f"NVMeTLSkey-1:{number:02d}:{base64.b64encode(secret + zlib.crc32(secret).to_bytes(4, 'little')).decode()}:"


@pytest.mark.parametrize(
    ("secret", "identity", "key"),
    [
        (
            SHA256,
            "NVMe1R01 hostnqn subsysnqn OldoKuTfKddMuyCznAZojkWD7P4D9/AtzDzLimtOxqI=",
            "3c17da628474a04d2247c4cab47968c915388193f7c071bd9489cc3666cd7cc8",
        ),
        (
            SHA384,
            "NVMe1R02 hostnqn subsysnqn cffMWk8TSS7HOQebjgYEIkrPrjWPV4JE5cdPB8WhEvY4JBW5YynKyv66XscN4A9n",
            "27747532" "33537b3fa50eb7d16a8e43457d85f4906c005b2236616c5d80939d0898fff15bb8b77119d2be0aac423e7590",
        ),
    ],
)  # fmt: skip
def test_as_the_kernel_makes_them(secret: bytes, identity: str, key: str) -> None:
    """The values of the kernel's own test (drivers/nvme/common/tests/auth_kunit.c, Linux 7.1), of a retained key."""
    made = tls_psk(configured(secret), "hostnqn", "subsysnqn")
    assert (made.identity, made.key.hex()) == (identity, key)


def test_each_host_and_subsystem_has_a_key_of_its_own() -> None:
    text = configured(SHA256, 1)
    made = [tls_psk(text, HOST, NQN), tls_psk(text, f"{HOST}2", NQN), tls_psk(text, HOST, f"{NQN}2")]
    made.append(tls_psk(configured(SHA256), HOST, NQN))
    assert len({psk.identity for psk in made}) == len({psk.key for psk in made}) == 4
    assert tls_psk(text, HOST, NQN) == made[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has not the form"),
        ("DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:", "has not the form"),
        (configured(SHA256, 2), "holds 32 bytes"),
        (configured(SHA256[:16]), "holds 16 bytes"),
        (configured(SHA256).replace("Fz", "Gz"), "checksum is wrong"),
        ("NVMeTLSkey-1:01:AAA:", "is not base64"),
    ],
)
def test_what_is_no_key(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        tls_psk(text, HOST, NQN)
    assert SHA256.hex() not in str(raised.value)


def test_a_key_is_not_shown() -> None:
    made = tls_psk(configured(SHA256), HOST, NQN)
    assert "key" not in repr(made)
    assert made.key.hex() not in repr(made)
