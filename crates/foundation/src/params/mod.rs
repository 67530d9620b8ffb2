//! Parameters: one declaration gives the flag, the variable, the type, the bounds, the help and the reference.
//!
//! ```
//! podkit_foundation::params! {
//!     /// What the example takes.
//!     pub struct Params {
//!         /// Connections at most, over all workers.
//!         max_connections: u32 { default: Some("10000"), bounds: Some((1, 1_000_000)) },
//!         /// The application's certificate authority.
//!         client_ca: Option<std::path::PathBuf> { live: true },
//!     }
//! }
//! # use podkit_foundation::params::*;
//! # fn main() {
//! let values = Values::gather(Params::PARAMS.iter(), &|_| vec![], &|_| None);
//! assert_eq!(Params::from_values(&values).unwrap().max_connections, 10_000);
//! # }
//! ```
//!
//! Parsing has no effects: flags and variables become [`Values`] (text with its origin), and a [`ParamSet`]
//! turns those into typed fields or one [`ParamError`] line.

mod addr;
mod cidr;
mod decl;
mod listed;
mod pairs;
mod types;
mod values;

pub use addr::{Addr, Scheme, Upstream, Where};
pub use cidr::{Cidr, CidrSet};
pub use decl::{Param, ParamSet};
pub use listed::{Listed, listed};
pub use pairs::{check_pair, pairs, unknown};
pub use types::{Factor, ParamShape, ParamType, Percent, Rate, Size};
pub use values::{Origin, ParamError, Raw, Values, unknown_variables};

#[cfg(test)]
mod tests;
