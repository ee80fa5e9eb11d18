"""The in-memory host for tests: `MemoryHost`, itself compared with a real one in the lab."""

from __future__ import annotations

from nvlane.apply.memory.host import MemoryHost
from nvlane.apply.memory.kernel import Pool
from nvlane.apply.memory.pci import MemoryFunction

__all__ = ["MemoryFunction", "MemoryHost", "Pool"]
