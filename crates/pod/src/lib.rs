//! The pod runner: a Kubernetes Pod on one Linux machine, without a daemon.
//!
//! `manifest` (text → objects, strictly) → `plan` (objects → what to do, nothing left to look up) →
//! `runner` (one supervisor per pod: order, probes, restarts, events) → `sandbox` (namespaces, mounts, the
//! single-threaded stage that becomes a container) with `volume`, `image`, `probe`; `sys` holds the raw system calls.

pub mod cgroup;
pub mod check;
pub mod control;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod image;
pub mod manifest;
pub mod net;
mod place;
pub mod plan;
pub mod probe;
pub mod runner;
pub mod sandbox;
mod sys;
pub mod volume;

pub use sys::give_back_start;
