"""Where the evidence is: node ids of tests as pytest collects them. A test holds that each of them exists."""

from __future__ import annotations

from typing import Final

_INSIDE: Final = "tests/lab/inside"


def inside(test: str) -> str:
    """A test in the lab, where drives, an IOMMU and guests are: 'test_crash.py::test_down_twice'."""
    return f"{_INSIDE}/{test}"


def lab(name: str, what: str) -> str:
    """A test of the lab's machine that has a lane of every kind that needs a drive of this host."""
    return inside(f"test_matrix.py::{name}[{what}]")


def calm(name: str, what: str) -> str:
    """A test of the lab's machine in which VFIO has no part."""
    return inside(f"test_matrix_fabrics.py::{name}[{what}]")


def asked(name: str, what: str) -> str:
    """A test that asks a real QEMU, or the target that serves it, without a guest."""
    return f"tests/cli/test_matrix_asked.py::{name}[{what}]"


def target(test: str) -> str:
    """A test of nvlane-target: 'test_scsi.py::test_who_it_is'."""
    return f"tests/target/{test}"


def jobs(test: str) -> str:
    """A test of the verbs for disks of a running machine, whose guest writes meanwhile."""
    return inside(f"test_block_jobs.py::{test}")


def planned(name: str, what: str) -> str:
    """A test that plans a way against facts from which something was taken."""
    return f"tests/unit/test_advise.py::{name}[{what}]"


def case(name: str) -> str:
    """A plan case: 'attach/nvdimm-refused'."""
    return f"tests/plan/test_cases.py::test_case[{name}]"


def life(lane: str) -> str:
    """Plugged into a running machine, verified, taken out, and the host as before."""
    return inside(f"test_machine_life.py::test_attach_verify_detach[{lane}]")
