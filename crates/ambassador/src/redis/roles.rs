//! Who is the primary: from what the servers say of themselves.
//!
//! `INFO replication` is asked, not ROLE: it says the role as ROLE does, and besides which history of writes the server has (the
//! replication id), without which an offset means nothing.

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// It says that it is the primary.
    pub(super) primary: bool,
    /// A replica that is connected to its primary.
    pub(super) linked: bool,
    /// A replica that gets a whole copy just now.
    pub(super) syncing: bool,
    /// Of a replica: of whom, `host:port`.
    pub(super) follows: String,
    /// Of the history of its writes.
    pub(super) id: String,
    /// That of the history before it became the primary.
    pub(super) former: String,
    /// How much of it is done.
    pub(super) offset: u64,
}

impl Said {
    /// Reads the reply to `INFO replication`, of RESP2 or RESP3. None when it is something else.
    pub(super) fn parse(reply: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(reply).ok()?;
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let primary = match field("role")? {
            "master" => true,
            "slave" => false,
            _ => return None,
        };
        let offset = match primary {
            true => "master_repl_offset",
            false => "slave_repl_offset",
        };
        let text = |name| field(name).unwrap_or_default().to_owned();
        Some(Self {
            primary,
            linked: field("master_link_status") == Some("up"),
            syncing: field("master_sync_in_progress") == Some("1"),
            follows: format!("{}:{}", text("master_host"), text("master_port")),
            id: text("master_replid"),
            former: text("master_replid2"),
            offset: field(offset)?.parse().unwrap_or(0),
        })
    }
}

/// Who is the primary now, where nobody else says it: the place in `said` (None: it does not answer). `named` is meant to be; `now` is
/// the one in force, with the id of its history.
///
/// The one in force stays as long as it says so, or is silent and there is no heir. An heir is one whose history goes on from there, or
/// that a replica follows, or any when the one in force says that it is a replica now: a former primary that comes back with old data is none.
pub(super) fn primary(
    said: &[Option<&Said>],
    named: Option<usize>,
    now: Option<(usize, &str)>,
) -> Option<usize> {
    let is = |at: usize| {
        said.get(at)
            .copied()
            .flatten()
            .is_some_and(|said| said.primary)
    };
    let followers = |of: &Said| {
        let follows = |said: &&&Said| !said.primary && said.id == of.id;
        said.iter().flatten().filter(follows).count()
    };
    if let Some((at, _)) = now
        && is(at)
    {
        return Some(at);
    }
    if now.is_none()
        && let Some(named) = named
        && is(named)
    {
        return Some(named);
    }
    let demoted = now.is_some_and(|(at, _)| said.get(at).copied().flatten().is_some());
    let candidates = said.iter().enumerate().filter_map(|(at, said)| {
        let said = (*said).filter(|said| said.primary)?;
        let heir = match now {
            None => true,
            Some((_, id)) => demoted || said.former == id || said.id == id || followers(said) > 0,
        };
        heir.then(|| (followers(said), said.offset, at))
    });
    candidates.max().map(|(_, _, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_is_read() {
        let said = Said::parse(
            b"$9\r\n# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
              master_sync_in_progress:0\r\nslave_read_repl_offset:99\r\nslave_repl_offset:42\r\nmaster_replid:abc\r\n\
              master_replid2:000\r\nmaster_repl_offset:43\r\n\r\n",
        );
        let said = said.unwrap();
        assert!(!said.primary && said.linked && !said.syncing);
        assert_eq!((said.offset, said.id.as_str()), (42, "abc"));
        assert_eq!(said.follows, "10.0.0.1:6379");
        let said = Said::parse(
            b"=9\r\ntxt:# R\r\nrole:master\r\nmaster_replid:abc\r\nmaster_repl_offset:43\r\n",
        );
        assert!(said.is_some_and(|said| said.primary && said.offset == 43));
        assert_eq!(Said::parse(b"+OK\r\n"), None);
        assert_eq!(Said::parse(b"$3\r\nrole:sentinel\r\n"), None);
    }

    fn master(id: &str, former: &str, offset: u64) -> Said {
        Said {
            primary: true,
            id: id.to_owned(),
            former: former.to_owned(),
            offset,
            ..Said::default()
        }
    }

    fn replica(id: &str) -> Said {
        Said {
            id: id.to_owned(),
            linked: true,
            ..Said::default()
        }
    }

    #[test]
    fn the_named_one_is_taken_first_and_the_most_followed_where_none_is() {
        let (a, b, c) = (master("a", "", 1), master("b", "", 9), replica("a"));
        let said = [Some(&a), Some(&b), Some(&c)];
        assert_eq!(primary(&said, Some(1), None), Some(1));
        assert_eq!(primary(&said, None, None), Some(0));
        assert_eq!(primary(&said[..2], None, None), Some(1));
        assert_eq!(primary(&[Some(&c), None], Some(1), None), None);
    }

    #[test]
    fn one_that_comes_back_with_old_data_is_no_heir() {
        let (old, now, heir) = (
            master("old", "", 9),
            master("x", "", 5),
            master("y", "x", 6),
        );
        let follower = replica("z");
        assert_eq!(
            primary(&[Some(&old), Some(&now)], Some(0), Some((1, "x"))),
            Some(1)
        );
        // Silent: it stays, though another says that it is one.
        assert_eq!(primary(&[Some(&old), None], Some(0), Some((1, "x"))), None);
        assert_eq!(
            primary(&[Some(&heir), None], Some(1), Some((1, "x"))),
            Some(0)
        );
        let followed = master("z", "", 1);
        let said = [Some(&followed), None, Some(&follower)];
        assert_eq!(primary(&said, Some(1), Some((1, "x"))), Some(0));
        // It says itself that it is a replica now.
        let demoted = replica("old");
        assert_eq!(
            primary(&[Some(&old), Some(&demoted)], Some(1), Some((1, "x"))),
            Some(0)
        );
    }
}
