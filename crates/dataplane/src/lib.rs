//! Everything that moves bytes: workers and listeners (`net`), our HTTP/1.1 (`http`), HTTP/2 (`http2`), Redis' protocol (`resp`) and
//! memcached's (`memcache`), TLS (`tls`), upstreams and their pools (`upstream`), the admin server that every module has (`admin`), the
//! driver of a module's life (`module`), and files that are followed (`watch`).

pub mod admin;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod http;
pub mod http2;
pub mod memcache;
pub mod module;
pub mod net;
pub mod resp;
pub mod tls;
pub mod upstream;
pub mod watch;
