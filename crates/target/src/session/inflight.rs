//! The record of requests in flight, which the front end keeps for the next process.

use std::os::fd::OwnedFd;

use nvlane_ring::Layout;
use nvlane_vhost_user::Inflight;

/// The least entries of a queue's record. A front end asks for as many as its device has by default, but its guest may
/// take a longer ring: QEMU allows VIRTQUEUE_MAX_SIZE (hw/virtio/virtio.c, virtio_queue_set_num), and SeaBIOS 1.16.3
/// takes 256 where 128 are offered.
const ROOM: u16 = 1024;

/// A new record for GET_INFLIGHT_FD.
pub(super) fn create(wanted: Inflight, layout: Layout, queues: usize) -> Result<(Inflight, OwnedFd), String> {
    let Inflight { num_queues, queue_size, .. } = wanted;
    if usize::from(num_queues) > queues {
        return Err(format!("{num_queues} queues are asked for, there are {queues}"));
    }
    if queue_size == 0 {
        return Err("it is asked for queues of no entries".into());
    }
    let capacity = queue_size.max(ROOM);
    let file = nvlane_ring::Inflight::create(layout, num_queues, capacity).map_err(|error| {
        format!("none can be made for {num_queues} queues of {queue_size} entries: {error}")
    })?;
    let length = nvlane_ring::Inflight::length(layout, num_queues, capacity);
    Ok((Inflight { mmap_size: length as u64, mmap_offset: 0, ..wanted }, file.into()))
}

/// The record of SET_INFLIGHT_FD, from this process or one before it. Its size tells how many entries there are: the
/// number that the front end names may be less (`ROOM`).
pub(super) fn map(
    inflight: Inflight,
    file: OwnedFd,
    layout: Layout,
) -> Result<nvlane_ring::Inflight, String> {
    let Inflight { mmap_size, mmap_offset, num_queues, queue_size } = inflight;
    let there =
        nvlane_ring::Inflight::capacity(layout, num_queues, mmap_size).filter(|&there| there >= queue_size);
    let Some(capacity) = there else {
        return Err(format!(
            "the in-flight record of {mmap_size} bytes is not one for {num_queues} queues of {queue_size} entries"
        ));
    };
    nvlane_ring::Inflight::map(file, mmap_offset, mmap_size, layout, num_queues, capacity).map_err(|error| {
        format!(
            "the in-flight record of {mmap_size} bytes at {mmap_offset} for {num_queues} queues of {queue_size} \
             entries cannot be used: {error}"
        )
    })
}
