//! Tests, by what they are about.

mod census;
mod containers;
mod mask;
mod ring;
mod stat;
