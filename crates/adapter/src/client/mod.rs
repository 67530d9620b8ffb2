//! Clients of servers that adapters ask, over connections that are kept.

pub(crate) mod memcached;
pub(crate) mod redis;
