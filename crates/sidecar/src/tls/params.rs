//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::net::SendProxy;
use podkit_dataplane::tls::{TlsParams, UpstreamTlsParams};
use podkit_dataplane::upstream::{Target, UpstreamLimits};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{
    Addr, Cidr, Origin, Param, ParamError, ParamSet as _, Upstream, Values,
};

use super::hsts::Hsts;

podkit_foundation::choices! {
    /// `--mode`.
    pub enum Mode {
        /// HTTP: the application learns who asked, and how.
        Http = "http",
        /// Any protocol: bytes go through as they are.
        Tcp = "tcp",
    }
}

podkit_foundation::params! {
    /// The parameters of `tls` besides those of TLS and HTTP.
    pub struct Params {
        /// Where TLS is served; repeatable.
        listen: Vec<Addr> { default: Some(":8443") },
        /// The application: host:port, :port (on the loopback) or unix:/path.
        ///
        /// One. Several are the work of `podkit balance`. `https://` in front: TLS is spoken to it as well, its certificate verified
        /// for its host or ;server-name=NAME; `h2c://`: HTTP/2 in the clear.
        upstream: Vec<Upstream> { optional: false },
        /// The other way round: clients come in the clear, and TLS is spoken to the upstream.
        ///
        /// For an application that speaks no TLS itself, to a service that wants it. The upstream is `https://…` then, and the
        /// parameters of a server's certificates are not there. Clients should come over the loopback or a unix socket.
        originate: bool { default: Some("false") },
        /// Balancers, as blocks of addresses, whose connections begin with a header of the PROXY protocol (v1 or v2);
        /// repeatable.
        ///
        /// Its source is the client from then on. Who comes over a unix socket is a balancer too. Others are served as who they are.
        accept_proxy: Vec<Cidr> {},
        /// Tell the upstream the client's address by the PROXY protocol, for --mode tcp.
        send_proxy: Option<SendProxy> {},
        /// What is carried.
        ///
        /// `http` reads requests: the application is told the client's address and scheme (X-Forwarded-For,
        /// X-Forwarded-Proto, X-Forwarded-Host, Forwarded) and, with `--client-ca`, its certificate (X-Forwarded-Client-Cert, as Envoy
        /// writes it; what a client sends under that name is removed). `tcp` passes bytes on, whatever they are.
        mode: Mode { default: Some("http") },
        /// Where plain HTTP is answered with a redirect to HTTPS.
        redirect_from: Option<Addr> {},
        /// The port that clients reach `--listen` at, for redirects; that of the first `--listen` unless given.
        ///
        /// Behind a Service or hostPort that maps 443 to 8443 this is 443.
        redirect_port: Option<u16> { bounds: Some((1, 65_535)) },
        /// Tell browsers to come by HTTPS only: 365d, then ;include-subdomains ;preload.
        ///
        /// Strict-Transport-Security (RFC 6797) on every answer, in place of the application's own. Off unless given, since
        /// a browser remembers it; `0s` takes it back.
        hsts: Option<Hsts> {},
        /// Believe X-Forwarded-… and Forwarded of requests, and add to them, instead of writing them anew.
        ///
        /// For behind a proxy that sets them. Any client can pretend anything then, if it can come past that proxy.
        trust_forwarded: bool { default: Some("false") },
    }
}

impl Params {
    /// The typed parameters, checked against each other.
    pub fn checked(values: &Values) -> Result<Self, Failure> {
        let params = Self::from_values(values)?;
        let wrong = |field: &str, why: &str| Failure::from(ParamError::new(field, why));
        if params.listen.is_empty() {
            return Err(wrong(
                "listen",
                "names no address; expected host:port, :port or unix:/path",
            ));
        }
        if params.mode == Mode::Tcp && params.hsts.is_some() {
            return Err(wrong(
                "hsts",
                "needs --mode http: in tcp mode no answer is read or changed",
            ));
        }
        if params.mode == Mode::Http && params.send_proxy.is_some() {
            let why = "needs --mode tcp: in http mode requests of many clients share connections, and \
                       X-Forwarded-For and Forwarded say whose each is";
            return Err(wrong("send_proxy", why));
        }
        if params.originate {
            params.check_originate(values)?;
        }
        if params.redirect_port.is_some() && params.redirect_from.is_none() {
            return Err(wrong("redirect_port", "needs --redirect-from"));
        }
        if params.redirect_from.is_some() && params.public_port().is_none() {
            let why = "needs --redirect-port: no --listen has a port that a redirect could name";
            return Err(wrong("redirect_from", why));
        }
        if let Some(field) = params.idle_flag(values) {
            let why = "needs --mode http (or --redirect-from, for the bounds of requests)";
            return Err(wrong(field, why));
        }
        params.target()?;
        Ok(params)
    }

    /// With `--originate` nothing is served by TLS.
    fn check_originate(&self, values: &Values) -> Result<(), Failure> {
        let wrong = |field: &str, why: &str| Failure::from(ParamError::new(field, why));
        if !self.target()?.is_tls() {
            let why = "TLS is not spoken to it; expected https://host:port with --originate";
            return Err(wrong("upstream", why));
        }
        if self.hsts.is_some() {
            return Err(wrong(
                "hsts",
                "can't go with --originate: clients come in the clear",
            ));
        }
        if self.redirect_from.is_some() {
            return Err(wrong(
                "redirect_from",
                "can't go with --originate: there is no HTTPS to go to",
            ));
        }
        let serves = |param: &Param| {
            TlsParams::PARAMS
                .iter()
                .any(|other| other.field == param.field)
        };
        let given = values.shown().find(|(param, raws)| {
            serves(param) && raws.iter().any(|raw| raw.origin == Origin::Flag)
        });
        match given {
            Some((param, _)) => Err(wrong(
                param.field,
                "can't go with --originate: no TLS is served (--upstream-ca, --upstream-cert and --upstream-key are for the upstream)",
            )),
            None => Ok(()),
        }
    }

    /// A flag that would do nothing in tcp mode. A variable may be there for all containers of a pod, and is let be.
    fn idle_flag(&self, values: &Values) -> Option<&'static str> {
        if self.mode == Mode::Http {
            return None;
        }
        let idle = |param: &Param| {
            let is_in = |set: &[Param]| set.iter().any(|other| other.field == param.field);
            match param.field {
                // The connections' own, whatever they carry.
                "max_connections" | "head_timeout" | "connect_timeout" | "tunnel_timeout" => false,
                "trust_forwarded" => true,
                _ if is_in(Http2Limits::PARAMS) => true,
                "upstream_http2" => true,
                _ if is_in(UpstreamTlsParams::PARAMS) => false,
                _ if is_in(HttpLimits::PARAMS) => self.redirect_from.is_none(),
                _ => is_in(UpstreamLimits::PARAMS),
            }
        };
        let given = values
            .shown()
            .find(|(param, raws)| idle(param) && raws.iter().any(|raw| raw.origin == Origin::Flag));
        given.map(|(param, _)| param.field)
    }

    /// The application, if it is one and of a form that is there.
    pub fn target(&self) -> Result<Target, Failure> {
        Target::only("tls", &self.upstream)
    }

    /// The port that redirects name: `--redirect-port`, else that of the first `--listen` with one.
    fn public_port(&self) -> Option<u16> {
        self.redirect_port
            .or_else(|| self.listen.iter().find_map(Addr::port))
    }
}
