"""How a target looks to a person: the details of `target status`, the table of `target top`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nvlane.cli.output import table
from nvlane.model.size import format_size
from nvlane.targets.rates import Rates


def details(view: Mapping[str, Any]) -> str:
    """One target, as `target_view.view_of` has it."""
    state = f"process {view['pid']}" if view["running"] else "has ended"
    lines = [f"{view['target']}: {view['engine']}, {state}"]
    if "version" in view:
        lines.append(f"  version     {view['version']}")
    lines.append(f"  log         {view['log']}")
    for reactor in view.get("reactors", ()):
        lines.append(f"  reactor     core {reactor['lcore']}")
    for bdev in view.get("bdevs", ()):
        size = format_size(bdev["num_blocks"] * bdev["block_size"])
        lines.append(f"  bdev        {bdev['name']}: {bdev['product_name']}, {size}, {bdev['block_size']}-byte blocks")
    for controller in view.get("controllers", ()):
        guests = len(controller["sessions"])
        lines.append(
            f"  controller  {controller['ctrlr']}: {_kind(controller)} on {controller['socket']}, "
            f"{'1 guest' if guests == 1 else f'{guests} guests'}"
        )
    return "\n".join(lines)


def _kind(controller: Mapping[str, Any]) -> str:
    backend = controller["backend_specific"]
    if "block" in backend:
        return f"virtio-blk of {backend['block']['bdev'] or 'a bdev that is gone'}"
    names = [lun["bdev_name"] for target in backend["scsi"] for lun in target["luns"]]
    return f"virtio-scsi of {', '.join(names) or 'nothing yet'}"


def top_text(name: str, rates: Rates, controllers: Sequence[Mapping[str, Any]]) -> str:
    """One look of `target top` in plain text."""
    busy = ", ".join(f"core {reactor.core} {reactor.busy:.0%}" for reactor in rates.reactors)
    guests = sum(len(controller["sessions"]) for controller in controllers)
    head = f"{name}: {len(controllers)} controllers, {guests} guests; reactors busy: {busy or 'none'}"
    return f"{head}\n{table(HEADINGS, rows(rates))}"


HEADINGS = ("BDEV", "READ/s", "WRITE/s", "READ B/s", "WRITE B/s", "READ µs", "WRITE µs")


def rows(rates: Rates) -> list[list[str]]:
    """The bdevs, under `HEADINGS`."""
    return [
        [
            bdev.name,
            f"{bdev.read_ops:.0f}",
            f"{bdev.write_ops:.0f}",
            _bytes(bdev.read_bytes),
            _bytes(bdev.write_bytes),
            f"{bdev.read_latency * 1e6:.1f}",
            f"{bdev.write_latency * 1e6:.1f}",
        ]
        for bdev in rates.bdevs
    ]


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
