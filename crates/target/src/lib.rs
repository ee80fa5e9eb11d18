//! The vhost-user target.
