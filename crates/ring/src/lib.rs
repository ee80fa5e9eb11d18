//! Virtqueues seen from the device.
