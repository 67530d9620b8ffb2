//! How each server is spoken to, by its address: in the clear or by TLS, and what its certificate is for.

use podkit_dataplane::upstream::{Membership, Target};
use podkit_foundation::params::Addr;

use super::params::Params;

/// Of all servers, those that are not known yet too.
#[derive(Debug)]
pub(super) struct Ways {
    /// Of those that were given: servers, sentinels and nodes of a cluster.
    given: Vec<Target>,
    /// What `--upstream` has for members.
    names: Option<Membership>,
    /// What sentinels and nodes name is spoken to by TLS.
    is_tls: bool,
    /// What the certificates of these are for, where that is not their address.
    server_name: Option<String>,
}

impl Ways {
    pub(super) fn new(params: &Params, names: Option<Membership>) -> Self {
        let given = params.given().map(|server| server.target());
        Self {
            given: given.collect(),
            names,
            is_tls: params.named_is_tls(),
            server_name: params.named_server_name().map(str::to_owned),
        }
    }

    /// What is dialled for an address.
    pub(super) fn target(&self, addr: &Addr) -> Target {
        if let Some(target) = self.given.iter().find(|one| one.addr() == addr) {
            return target.clone();
        }
        if let Some(names) = &self.names {
            let view = names.view();
            let mut all = view.endpoints.iter().map(|one| one.target());
            if let Some(target) = all.find(|one| one.addr() == addr) {
                return target.clone();
            }
        }
        if !self.is_tls {
            return Target::of(addr.clone());
        }
        Target::tls(addr.clone(), self.server_name.as_deref())
            // Not a name that a certificate could be for: neither is this one (RFC 2606), so that it is refused, with its reason.
            .or_else(|_| Target::tls(addr.clone(), Some("server.invalid")))
            .expect("it is a host name")
    }
}

#[cfg(test)]
mod tests {
    use podkit_foundation::params::{ParamSet as _, ParamType as _, Values};

    use super::*;

    fn check(flags: &[(&str, &str)], addr: &str, expected: Result<Option<&str>, ()>) {
        let given = |field: &str| {
            let mine = flags.iter().filter(|(name, _)| *name == field);
            mine.map(|(_, value)| (*value).to_owned()).collect()
        };
        let values = Values::gather(Params::PARAMS.iter(), &|param| given(param.field), &|_| {
            None
        });
        let ways = Ways::new(&Params::checked(&values).unwrap(), None);
        let addr = Addr::parse(addr).unwrap();
        let wanted = match expected {
            Ok(name) => Target::tls(addr.clone(), name).unwrap(),
            Err(()) => Target::of(addr.clone()),
        };
        assert_eq!(ways.target(&addr), wanted, "{flags:?}");
    }

    #[test]
    fn servers_are_spoken_to_as_it_was_said_of_them() {
        let named = [
            ("primary", "rediss://10.0.0.1:1;server-name=a"),
            ("replica", "10.0.0.2:1"),
        ];
        check(&named, "10.0.0.1:1", Ok(Some("a")));
        check(&named, "10.0.0.2:1", Err(()));
        let sentinels = |first, more: &[(&'static str, &'static str)]| {
            let mut all = vec![("sentinel", first), ("master_name", "main")];
            all.extend(more);
            all
        };
        let plain = sentinels("10.0.0.9:26379", &[]);
        check(&plain, "10.0.0.1:1", Err(()));
        let secure = sentinels("rediss://10.0.0.9:26379", &[]);
        check(&secure, "10.0.0.9:26379", Ok(None));
        check(&secure, "10.0.0.1:1", Ok(None));
        let named = [("master_server_name", "redis.example")];
        let named = sentinels("rediss://10.0.0.9:26379", &named);
        check(&named, "10.0.0.1:1", Ok(Some("redis.example")));
        check(&named, "10.0.0.9:26379", Ok(None));
        let apart = sentinels("rediss://10.0.0.9:26379", &[("master_tls", "false")]);
        check(&apart, "10.0.0.1:1", Err(()));
        let apart = sentinels("10.0.0.9:26379", &[("master_tls", "true")]);
        check(&apart, "10.0.0.1:1", Ok(None));
        check(&apart, "10.0.0.9:26379", Err(()));
    }

    #[test]
    fn nodes_that_a_cluster_names_are_spoken_to_as_those_that_were_given() {
        check(&[("cluster", "10.0.0.1:1")], "10.0.0.2:1", Err(()));
        let secure = [("cluster", "rediss://10.0.0.1:1")];
        check(&secure, "10.0.0.1:1", Ok(None));
        check(&secure, "10.0.0.2:1", Ok(None));
        let named = [
            ("cluster", "rediss://10.0.0.1:1"),
            ("cluster", "rediss://10.0.0.2:1;server-name=redis.example"),
        ];
        check(&named, "10.0.0.1:1", Ok(None));
        check(&named, "10.0.0.3:1", Ok(Some("redis.example")));
    }

    #[test]
    fn nodes_of_a_cluster_are_all_given_the_same_way_and_once() {
        let check = |given: [&str; 2], expected: &str| {
            let values = Values::gather(
                Params::PARAMS.iter(),
                &|param| match param.field {
                    "cluster" => given.map(str::to_owned).to_vec(),
                    _ => Vec::new(),
                },
                &|_| None,
            );
            let why = Params::checked(&values).unwrap_err().to_string();
            assert!(why.contains(expected), "{why}");
        };
        check(["rediss://a:1", "b:1"], "give all nodes rediss://, or none");
        check(["a:1", "a:1"], "\"a:1\" is \"a:1\", which is given too");
    }
}
