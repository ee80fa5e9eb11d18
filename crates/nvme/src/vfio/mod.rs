//! Devices through VFIO.
