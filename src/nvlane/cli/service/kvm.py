"""Whether KVM really works here."""

from __future__ import annotations

from nvlane.facts.shape import Kvm


def kvm_works(qemu: str) -> Kvm:
    return Kvm(usable=False, reason=f"not probed with {qemu}")
