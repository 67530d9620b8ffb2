//! `dns://`: a name has addresses, by the system's resolver or by one name server, asked anew each time.

use std::net::{IpAddr, SocketAddr};

use podkit_dataplane::upstream::{lookup, lookup_at};

use super::{Prober, Probing};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::{Place, Spec};

/// Of name servers (RFC 1035, 4.2).
const PORT: u16 = 53;

pub(super) struct Dns {
    name: String,
    /// The name server; none: as the system has it.
    server: Option<SocketAddr>,
    wanted: Wanted,
}

struct Wanted {
    /// One of the addresses.
    address: Option<IpAddr>,
    /// Addresses at least.
    least: usize,
}

impl Dns {
    pub(super) fn new(spec: &Spec) -> Result<Self, String> {
        let Place::Host(name) = &spec.place else {
            return Err("it names no host".to_owned());
        };
        let address = spec.option("address").map(|text| {
            let address = text.parse();
            address.map_err(|_| format!("address={text} is not an IP address"))
        });
        let server = spec.option("server").map(|text| {
            let server = text.parse().or_else(|_| {
                let ip: Result<IpAddr, _> = text.parse();
                ip.map(|ip| SocketAddr::new(ip, PORT))
            });
            server.map_err(|_| format!("server={text} is neither an IP address nor IP:PORT"))
        });
        Ok(Self {
            name: name.clone(),
            server: server.transpose()?,
            wanted: Wanted {
                address: address.transpose()?,
                least: spec.number("at-least")?.unwrap_or(1) as usize,
            },
        })
    }
}

impl Prober for Dns {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(async {
            phases.enter(Phase::Dns);
            let found = match self.server {
                Some(server) => lookup_at(server, &self.name).await,
                None => lookup(&self.name).await,
            };
            self.wanted
                .look(&found.map_err(|why| format!("can't be resolved: {why}"))?)
        })
    }
}

impl Wanted {
    fn look(&self, found: &[IpAddr]) -> Result<String, String> {
        let shown: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        let shown = shown.join(", ");
        if let Some(address) = self.address.filter(|address| !found.contains(address)) {
            return Err(format!("is {shown}, not {address}"));
        }
        match found.len() < self.least {
            true => Err(format!(
                "has only {} of {} addresses: {shown}",
                found.len(),
                self.least
            )),
            false => Ok(format!("is {shown}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_held_against_what_is_wanted() {
        let check = |address: Option<&str>, least, expected: Result<&str, &str>| {
            let wanted = Wanted {
                address: address.map(|text| text.parse().unwrap()),
                least,
            };
            let found = wanted.look(&["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected);
        };
        check(None, 1, Ok("is 10.0.0.1, ::1"));
        check(Some("::1"), 2, Ok("is 10.0.0.1, ::1"));
        check(Some("::2"), 1, Err("is 10.0.0.1, ::1, not ::2"));
        check(None, 3, Err("has only 2 of 3 addresses: 10.0.0.1, ::1"));
    }
}
