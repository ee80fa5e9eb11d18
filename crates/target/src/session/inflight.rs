//! The record of requests in flight, which the front end keeps for the next process.

use std::os::fd::OwnedFd;

use nvlane_ring::Layout;
use nvlane_vhost_user::Inflight;

/// A new record for GET_INFLIGHT_FD.
pub(super) fn create(wanted: Inflight, layout: Layout, queues: usize) -> Result<(Inflight, OwnedFd), String> {
    let Inflight { num_queues, queue_size, .. } = wanted;
    if usize::from(num_queues) > queues {
        return Err(format!("{num_queues} queues are asked for, there are {queues}"));
    }
    let file = nvlane_ring::Inflight::create(layout, num_queues, queue_size).map_err(|error| {
        format!("none can be made for {num_queues} queues of {queue_size} entries: {error}")
    })?;
    let length = nvlane_ring::Inflight::length(layout, num_queues, queue_size);
    Ok((Inflight { mmap_size: length as u64, mmap_offset: 0, ..wanted }, file.into()))
}

/// The record of SET_INFLIGHT_FD, from this process or one before it.
pub(super) fn map(
    inflight: Inflight,
    file: OwnedFd,
    layout: Layout,
) -> Result<nvlane_ring::Inflight, String> {
    let Inflight { mmap_size, mmap_offset, num_queues, queue_size } = inflight;
    nvlane_ring::Inflight::map(file, mmap_offset, mmap_size, layout, num_queues, queue_size).map_err(|error| {
        format!(
            "the in-flight record of {mmap_size} bytes at {mmap_offset} for {num_queues} queues of {queue_size} \
             entries cannot be used: {error}"
        )
    })
}
