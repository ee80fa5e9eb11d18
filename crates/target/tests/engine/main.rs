//! The engine with a driver of ours: requests of a block device, and everything a guest can do to a queue.

mod blk;
mod corpus;
mod hostile;
mod life;
mod model;
mod rig;
mod sleep;
