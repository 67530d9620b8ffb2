//! `tcp://`, `tls://`: somebody listens there; by TLS, with a certificate that is trusted.

use podkit_dataplane::tls::Inside;

use super::{Prober, Probing};
use crate::health::link::{Ground, Link};
use crate::health::phases::Phases;
use crate::health::spec::Spec;

pub(super) struct Tcp(Link);

impl Tcp {
    pub(super) fn new(spec: &Spec, ground: &Ground) -> Result<Self, String> {
        Link::new(spec, ground, Inside::Any).map(Self)
    }
}

impl Prober for Tcp {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(async {
            self.0.open(phases).await?;
            Ok("connected".to_owned())
        })
    }
}
