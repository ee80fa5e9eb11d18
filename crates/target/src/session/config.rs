//! The configuration space, as a front end reads and writes it.

use nvlane_vhost_user::Reply;

use super::owner::{CONFIG_SIZE, Owner};
use super::state::Outcome;

/// Any part of the configuration space: what the device has, and zeroes.
pub(super) fn get_config(offset: u32, size: u32, flags: u32, owner: &dyn Owner) -> Outcome {
    let mut space = owner.config();
    space.resize(2 * CONFIG_SIZE, 0);
    let start = (offset as usize).min(CONFIG_SIZE);
    let bytes = space[start..start + (size as usize).min(CONFIG_SIZE)].to_vec();
    Outcome::Reply(match bytes.is_empty() {
        true => Reply::Empty,
        false => Reply::Config { offset, flags, bytes },
    })
}

pub(super) fn set_config(offset: u32, flags: u32, bytes: &[u8], owner: &mut dyn Owner) -> Result<(), String> {
    if owner.set_config(offset, bytes, flags & 1 != 0) {
        return Ok(());
    }
    Err(format!("{} bytes at {offset} of the configuration space cannot be written", bytes.len()))
}
