//! Feature bits that belong to the transport, and protocol features.
//!
//! Bits 20 and above have changed their meaning between QEMU releases, libvhost-user and rust-vmm (20 was SHMEM, then
//! GET_VRING_BASE_INFLIGHT); they have no names here and are never negotiated.

/// VIRTIO_F_NOTIFY_ON_EMPTY of legacy devices.
pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
/// VHOST_F_LOG_ALL: the back end marks the pages it writes. It is never shown to the guest.
pub const LOG_ALL: u64 = 1 << 26;
/// VIRTIO_F_INDIRECT_DESC (virtio 1.3, 2.7.5.3 and 2.8.7).
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX (virtio 1.3, 2.7.10 and 2.8.10).
pub const EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES: the peer knows GET_PROTOCOL_FEATURES, and rings start disabled.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM: ring and buffer addresses go through an IOMMU.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_RING_PACKED (virtio 1.3, 2.8).
pub const RING_PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER.
pub const IN_ORDER: u64 = 1 << 35;
/// VIRTIO_F_RING_RESET.
pub const RING_RESET: u64 = 1 << 40;

/// VHOST_VRING_F_LOG, a flag of SET_VRING_ADDR: writes to the used ring are logged.
pub const VRING_LOG: u32 = 1;

/// Protocol features (vhost-user.rst, «Protocol features»).
pub mod protocol {
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const RARP: u64 = 1 << 2;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const MTU: u64 = 1 << 4;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CROSS_ENDIAN: u64 = 1 << 6;
    pub const CRYPTO_SESSION: u64 = 1 << 7;
    pub const PAGEFAULT: u64 = 1 << 8;
    pub const CONFIG: u64 = 1 << 9;
    pub const BACKEND_SEND_FD: u64 = 1 << 10;
    pub const HOST_NOTIFIER: u64 = 1 << 11;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const INBAND_NOTIFICATIONS: u64 = 1 << 14;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const XEN_MMAP: u64 = 1 << 17;
    pub const SHARED_OBJECT: u64 = 1 << 18;
    pub const DEVICE_STATE: u64 = 1 << 19;

    /// The bits whose meaning is settled.
    pub const SETTLED: u64 = (1 << 20) - 1;

    /// What a block or SCSI back end offers.
    pub const STORAGE: u64 = MQ
        | LOG_SHMFD
        | REPLY_ACK
        | BACKEND_REQ
        | CONFIG
        | INFLIGHT_SHMFD
        | RESET_DEVICE
        | CONFIGURE_MEM_SLOTS
        | STATUS;
}
