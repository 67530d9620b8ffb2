//! YAML (and so JSON) that people write: documents as trees that remember where everything stood, and what was found in them.
//!
//! ```text
//! file ─ read ─▶ text ─ reader ─▶ Node (positions) ─▶ whoever knows what it means
//!                          ╰────────▶ Findings: FILE:LINE:COLUMN: what is wrong
//! ```

pub mod finding;
mod lenient;
pub mod nearest;
pub mod node;
pub mod read;
pub mod reader;
pub mod scalar;
mod syntax;

pub use finding::{Finding, Findings, Place, Severity};
pub use nearest::nearest;
pub use node::{Entry, Mark, Node, Path, Source, Value};
pub use reader::{documents, documents_in};
pub use scalar::Schema;
