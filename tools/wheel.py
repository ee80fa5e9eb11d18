"""Hatchling's hook: the wheel carries programs and a module for one platform, and says so in its tag.

The module is made for abi3 of Python 3.11 (crates/py/Cargo.toml), so one wheel serves every Python from there on.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = ("src/nvlane/_bin/nvlane-probe", "src/nvlane/_bin/nvlane-target", "src/nvlane/_native.abi3.so")


class PlatformWheel(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install points to the checkout, where tools/prepare puts them sooner or later.
        if version == "editable" or self.target_name != "wheel":
            return
        missing = [name for name in BUILT if not (Path(self.root) / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{', '.join(missing)}: run tools/prepare first, it builds them")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
