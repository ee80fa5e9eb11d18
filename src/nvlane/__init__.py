"""nvlane gives a virtual machine NVMe storage or persistent memory by every lane there is."""

__version__ = "0.1.0"
