//! The vhost-user protocol as values.
