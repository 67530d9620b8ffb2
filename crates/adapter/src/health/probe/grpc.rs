//! `grpc://`, `grpcs://`: the health service of gRPC (grpc.health.v1) says SERVING.

use podkit_dataplane::tls::Inside;
use podkit_dataplane::upstream::grpc_check;

use super::{Prober, Probing};
use crate::health::link::{Ground, Link};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::Spec;

pub(super) struct Grpc {
    link: Link,
    /// Empty: the server as a whole.
    service: String,
}

impl Grpc {
    pub(super) fn new(spec: &Spec, ground: &Ground) -> Result<Self, String> {
        Ok(Self {
            link: Link::new(spec, ground, Inside::Http2)?,
            service: spec.option("service").unwrap_or_default().to_owned(),
        })
    }
}

impl Prober for Grpc {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(async {
            let line = self.link.open(phases).await?;
            phases.enter(Phase::Query);
            grpc_check(line.wire, self.link.host(), &self.service).await?;
            Ok("says SERVING".to_owned())
        })
    }
}
