"""What crates/py gives to Python. Only `nvlane.targets.native_module` imports it."""

from typing import Final

VERSION: Final[str]
