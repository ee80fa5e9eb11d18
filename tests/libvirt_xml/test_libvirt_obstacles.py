"""What libvirt gets in the way of: each obstacle is reached, with its remedy, and none where there is none."""

from __future__ import annotations

import dataclasses

import pytest
from domain_lanes import DOMAINS, KINDS, NEW, lane, libvirt

from nvlane.libvirt.capabilities import LibvirtCapabilities
from nvlane.libvirt.obstacles import Obstacle, obstacles, security_models
from nvlane.model.errors import HostError

TEXTS = {path.stem: path.read_bytes().decode() for path in DOMAINS}
DEBIAN_12 = libvirt((9, 0, 0))


def found(domain: str, kind: str, at: LibvirtCapabilities = DEBIAN_12, *security: str) -> dict[str, Obstacle]:
    wanted = lane(kind, "lane0")
    seen = obstacles(TEXTS[domain], wanted.devices, wanted.needs, at, security=frozenset(security))
    return {obstacle.code: obstacle for obstacle in seen}


@pytest.mark.parametrize("kind", KINDS)
def test_every_obstacle_has_a_remedy(kind: str) -> None:
    for domain in TEXTS:
        for obstacle in found(domain, kind, DEBIAN_12, "apparmor", "selinux", "dac").values():
            assert obstacle.text and obstacle.remedy


def test_apparmor_and_selinux_know_nothing_of_the_command_line() -> None:
    seen = found("q35-numa-cells", "emulated", DEBIAN_12, "apparmor", "dac")
    assert seen.keys() == {"apparmor"}
    assert "quotes'.qcow2" in seen["apparmor"].text
    assert "/etc/apparmor.d/local/abstractions/libvirt-qemu" in seen["apparmor"].remedy
    socket = found("q35-numa-cells", "vhost-scsi", libvirt((11, 3, 0)), "apparmor", "selinux")
    assert "/etc/apparmor.d/abstractions/libvirt-qemu.d/nvlane" in socket["apparmor"].remedy
    assert "/run/nvlane/vm/lane0/vhost.sock" in socket["selinux"].remedy
    assert socket["apparmor"].stops and socket["selinux"].stops


def test_what_libvirt_has_xml_for_is_labelled_by_it() -> None:
    assert "apparmor" not in found("q35-numa-cells", "vhost-blk", DEBIAN_12, "apparmor", "selinux")
    assert not found("q35-numa-cells", "emulated", libvirt(NEW), "apparmor", "selinux")


def test_an_unconfined_domain_is_not_kept_from_anything() -> None:
    assert not found("q35-seclabel-none", "emulated", DEBIAN_12, "apparmor", "selinux")


def test_private_memory() -> None:
    assert found("q35-numa-cells", "vhost-blk")["memory-private"].stops is False
    for shared in ("q35-numa-shared", "q35-virtiofs", "q35-memory-in-file"):
        assert "memory-private" not in found(shared, "vhost-blk")
    assert "memory-private" in found("q35-numa-private", "vhost-blk")
    assert "memory-private" in found("q35-dimm-private", "vhost-blk")


def test_locked_memory() -> None:
    limit = found("q35-hard-limit", "passthrough")["hard-limit"]
    assert "virsh memtune DOMAIN --hard-limit 5242880" in limit.remedy
    assert "hard-limit" not in found("q35-numa-cells", "passthrough")
    assert "nvme-uncounted" in found("q35-numa-cells", "userspace-blk")
    assert "nvme-uncounted" not in found("q35-numa-cells", "userspace-blk", libvirt((9, 3, 0)))


def test_a_function_that_the_domain_has() -> None:
    xml = TEXTS["q35-userspace-present"].replace("bus='0x07' slot='0x00'", "bus='0x82' slot='0x00'")
    wanted = lane("userspace-blk", "lane0")
    codes = {o.code: o for o in obstacles(xml, wanted.devices, wanted.needs, DEBIAN_12)}
    assert "0000:82:00.0 already, as a managed <disk>" in codes["function-taken"].text
    assert "function-taken" not in found("q35-userspace-present", "userspace-blk")
    assert "managed='no'" in found("q35-sr-iov", "passthrough")["unmanaged"].text


def test_a_session_connection_has_no_vfio() -> None:
    session = dataclasses.replace(DEBIAN_12, session=True)
    assert "qemu:///system" in found("q35-numa-cells", "passthrough", session)["session-vfio"].remedy
    assert not found("q35-numa-cells", "emulated", session)


def test_a_qemu_without_the_device() -> None:
    slim = dataclasses.replace(DEBIAN_12, devices=frozenset({"virtio-blk-pci", "vhost-user-blk-pci"}))
    assert "'vhost-user-scsi-pci'" in found("q35-numa-cells", "vhost-scsi", slim)["no-device"].text
    assert "no-device" not in found("q35-numa-cells", "vhost-blk", slim)


def test_a_device_node_of_the_command_line_is_not_in_the_domains_dev() -> None:
    wanted = lane("nvdimm", "lane0")
    memory = dataclasses.replace(
        wanted.devices[0], properties={"size": 1 << 30, "share": True, "mem-path": "/dev/dax0.0", "readonly": True}
    )
    seen = obstacles(TEXTS["q35-numa-cells"], (memory, wanted.devices[1]), wanted.needs, DEBIAN_12)
    assert [o.code for o in seen] == ["private-dev"]
    assert '"/dev/dax0.0" to cgroup_device_acl' in seen[0].remedy


def test_virtio_pmem_beside_another_memory_device_on_an_old_libvirt() -> None:
    assert found("q35-dimm", "virtio-pmem")["pmem-beside-memory"].stops
    assert not found("q35-dimm", "virtio-pmem", libvirt((9, 4, 0)))
    assert not found("q35-numa-cells", "virtio-pmem")


def test_security_models() -> None:
    xml = (
        "<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model></secmodel></host>"
    )
    assert security_models(f"{xml}</capabilities>") == {"apparmor", "dac"}
    with pytest.raises(HostError, match="cannot be read"):
        security_models("<capabilities>")
