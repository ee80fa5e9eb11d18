"""What crates/py gives to Python. Only `nvlane.targets.native_module` imports it."""

from collections.abc import Mapping
from typing import Final

VERSION: Final[str]
"""The version of the target that this module knows."""

def methods() -> list[str]:
    """The target's JSON-RPC methods, in its own order."""

def aliases() -> Mapping[str, str]:
    """Names from before SPDK 22.05 -> the methods that they mean."""

def check_config(text: str) -> None:
    """Check a configuration (save_config's JSON) without starting anything. Raises ValueError with the place."""
