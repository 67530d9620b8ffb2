//! Answers from this process: the admin server, echo, redirects.
//!
//! ```no_run
//! use std::rc::Rc;
//! use podkit_dataplane::http::local::{Answer, Handler, Local, Request, Response};
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a> {
//!         Box::pin(async move {
//!             match (request.method(), request.path()) {
//!                 ("GET" | "HEAD", "/") => Response::text(200, "hello\n"),
//!                 (_, "/") => Response::method_not_allowed("GET, HEAD"),
//!                 _ => Response::not_found(),
//!             }
//!         })
//!     }
//! }
//! # fn start(worker: Rc<podkit_dataplane::net::Worker>, port: podkit_dataplane::net::Port,
//! #          limits: podkit_dataplane::http::HttpLimits) {
//! let local = Rc::new(Local::new(Hello, limits));
//! tokio::task::spawn_local(podkit_dataplane::net::accept(port, worker, local));
//! # }
//! ```
//!
//! Same parser, limits and deadlines as the proxy. A handler gets the whole request (its body bounded) and returns an
//! answer whose body is bytes or a [`Source`] that is asked for more as the client takes it.

mod request;
mod response;
mod serve;

pub use request::{BodyUse, Request};
pub use response::{Body, Response, Source};
pub use serve::Local;

/// An answer that is being made.
pub type Answer<'a> = std::pin::Pin<Box<dyn Future<Output = Response> + 'a>>;

/// Makes answers. One per thread, shared by its connections.
pub trait Handler: 'static {
    /// Answers one request. A HEAD request is answered like GET: the body is left out by the server.
    fn handle<'a>(&'a self, request: Request<'a>) -> Answer<'a>;

    /// What becomes of request bodies. By default up to 1 MiB is collected.
    fn body_use(&self) -> BodyUse {
        BodyUse::Collect(1 << 20)
    }
}

#[cfg(test)]
mod tests;
