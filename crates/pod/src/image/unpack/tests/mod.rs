//! Layers as they should be, as they may be, and as someone would make them who wants out.

mod attributes;
mod format;
mod hostile;
mod ownership;
mod packing;
mod support;
mod tree;
