"""What SPDK 26.05 was asked, in order, and what it answered, against our target: same shapes, same error codes.

`DIFFERENT` holds every answer that is another one on purpose, with the reason; `VOLATILE` the values that differ from
run to run. A member that only we have is no difference: SPDK's clients pass over what they do not know.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rpc_peer import Bare, Peer, Refused, recorded

#: Compared by type.
VOLATILE = {
    "aliases", "uuid", "version", "fields", "tick_rate", "ticks", "pid", "tid", "busy", "idle", "elapsed", "sys", "usr",
    "irq", "socket", "filename", "lcore", "numa_id", "lw_threads", "reactors", "in_interrupt", "suffix", "commit",
    "preferred_unmap_alignment", "preferred_unmap_granularity",
}  # fmt: skip

#: Answers that differ in a place, on purpose.
PLACES = {
    "110 bdev_get_bdevs[1].supported_io_types.write": "a read-only file cannot be written",
    "110 bdev_get_bdevs[1].supported_io_types.write_zeroes": "a read-only file cannot be written",
    "89 log_get_print_level": "less is printed by default",
}

#: Members of `supported_io_types` that bdevs here do not have; our front ends never ask for them.
_NOT_OFFERED = {"zcopy", "compare", "abort", "copy"}

#: Not in the recording, but what was recorded after it shows that it was done. `{}` is the id of the pair that follows.
BETWEEN: dict[int, list[tuple[str, dict[str, Any]]]] = {
    # Ours makes Malloc1, see DIFFERENT; SPDK did not have it afterwards.
    13: [("bdev_malloc_delete", {"name": "Malloc1"})],
    65: [
        ("vhost_controller_set_coalescing", {"ctrlr": "vhost.blk0", "delay_base_us": 10, "iops_threshold": 60000}),
        ("vhost_scsi_controller_remove_target", {"ctrlr": "vhost.scsi0", "scsi_target_num": 1}),
    ],
    99: [("bdev_malloc_delete", {"name": "Malloc0"})],
}


def _names(answer: Any) -> bool:
    return isinstance(answer, list) and "framework_start_init" in answer and "bdev_get_bdevs" not in answer


DIFFERENT: dict[int, tuple[str, Callable[[Any], bool]]] = {
    1: ("only the methods that are here; those of the startup state all the same", _names),
    12: ("SPDK counts on and finds its own name taken (-17); ours takes the next free one", lambda r: r == "Malloc1"),
    35: ("SPDK is still busy with the limit before (EAGAIN); ours is not", lambda r: r is True),
    87: (
        "flags stand for parts of the program, which are others",
        lambda r: set(r.values()) == {False} and "vhost" in r,
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("replay")
    for name in ("aio0.img", "uring0.img"):
        with (directory / name).open("wb") as file:
            file.truncate(64 << 20)
    return directory


def ask(target: Peer, request: dict[str, Any], files: Path) -> tuple[str, Any]:
    params = dict(request.get("params", {}))
    if str(params.get("filename", "")).startswith("/var/lib/images/"):
        params["filename"] = str(files / Path(params["filename"]).name)
    try:
        return "result", target(request["method"], params)
    except Refused as error:
        return "error", {"code": error.code, "message": error.message}


def compare(expected: Any, found: Any, place: str) -> list[str]:
    """Where they differ."""
    key = place.rpartition(".")[2]
    if place in PLACES:
        return []
    if isinstance(expected, bool) or not isinstance(expected, type(found)):
        numbers = (
            not isinstance(expected, bool) and isinstance(expected, (int, float)) and isinstance(found, (int, float))
        )
        if expected == found or numbers or key in _NOT_OFFERED or key in VOLATILE:
            return []
        return [f"{place}: {expected!r} became {found!r}"]
    if isinstance(expected, dict):
        missing = [f"{place}.{key} is missing" for key in expected if key not in found]
        inner = (compare(value, found[key], f"{place}.{key}") for key, value in expected.items() if key in found)
        return missing + [line for lines in inner for line in lines]
    if key in VOLATILE:
        return []
    if isinstance(expected, list):
        if len(expected) != len(found):
            return [f"{place}: {len(expected)} elements became {len(found)}"]
        inner = (
            compare(one, other, f"{place}[{n}]") for n, (one, other) in enumerate(zip(expected, found, strict=True))
        )
        return [line for lines in inner for line in lines]
    counted = isinstance(expected, int) and ".bdevs[" in place
    return [] if expected == found or counted else [f"{place}: {expected!r} became {found!r}"]


def replay(target: Peer, pairs: list[dict[str, Any]], files: Path) -> list[str]:
    wrong: list[str] = []
    for pair in pairs:
        ident = pair["request"]["id"]
        for method, params in BETWEEN.get(ident, []):
            assert target(method, params) is True, method
        kind, found = ask(target, pair["request"], files)
        place = f"{ident} {pair['request']['method']}"
        if ident in DIFFERENT:
            reason, right = DIFFERENT[ident]
            if not right(found):
                wrong.append(f"{place}: {found!r} ({reason})")
        elif kind not in pair["response"]:
            wrong.append(f"{place}: {pair['response']} became {kind} {found!r}")
        else:
            wrong += compare(pair["response"][kind], found, place)
    return wrong


def test_every_recorded_request_gets_spdks_answer(tmp_path: Path, files: Path) -> None:
    pairs = list(recorded())
    startup = [pair for pair in pairs if pair["request"]["id"] < 10]
    with Bare(tmp_path, "--wait-for-rpc", "--allow-path", str(files)) as target:
        wrong = replay(Peer(target), startup + [pair for pair in pairs if pair not in startup], files)
    assert not wrong, "\n".join(wrong)


def test_nothing_is_called_different_that_was_not_recorded() -> None:
    identities = {pair["request"]["id"] for pair in recorded()}
    assert identities >= set(DIFFERENT) | set(BETWEEN)
