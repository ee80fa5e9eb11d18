//! Conversations with a session: a front end on one end of a socket pair, the session on the other.

mod guest;
mod hostile;
mod inflight;
mod life;
mod migration;
mod server;
mod whole;
