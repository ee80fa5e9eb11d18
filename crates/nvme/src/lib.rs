//! A polled NVMe driver in user space, over VFIO.
