//! Tests, by what they are about.

mod answers;
mod census;
mod containers;
mod mask;
mod oracle;
mod proc;
mod ring;
mod stat;
