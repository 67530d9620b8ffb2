//! Against real git, and byte by byte.

mod repositories;
mod signatures;
mod texts;
