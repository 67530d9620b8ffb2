//! What the sentinels say: who is the primary, and since which election.
//!
//! A sentinel raises the epoch of a configuration only when most sentinels have elected it to. So one sentinel that says a new epoch is to
//! be believed before the others have heard of it (which takes them up to 2 s), and one that says an old epoch is not: it is behind, or cut off.
//!
//! The sentinel that is elected looks once a second whether the replica has become the primary that it told to. Whoever sees earlier that a replica
//! goes on with the primary's history as one itself, while a sentinel says that there is a failover, need not wait for that: the engine does so.

use podkit_dataplane::resp::scan::{elements, text};
use podkit_foundation::params::{Addr, ParamType as _};

/// What a sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Where the primary is.
    pub(super) primary: Addr,
    /// Of the configuration.
    pub(super) epoch: u64,
    /// It takes part in a failover that is not over.
    pub(super) failing: bool,
    /// Where the replicas are.
    pub(super) replicas: Vec<Addr>,
}

/// Whom to take for the primary, of the answers that there are, by `count` sentinels. `now`: who was taken, and of which epoch.
pub(super) fn agreed<'a>(
    answers: &[&'a Answer],
    count: usize,
    now: Option<(&Addr, u64)>,
) -> Option<&'a Answer> {
    let votes = |of: &Answer| {
        let same = |other: &&&Answer| other.primary == of.primary && other.epoch == of.epoch;
        answers.iter().filter(same).count()
    };
    let newest = answers
        .iter()
        .max_by_key(|answer| (answer.epoch, votes(answer)))?;
    let most = answers
        .iter()
        .find(|answer| votes(answer) * 2 > count)
        .copied();
    match now {
        None => most,
        Some((_, epoch)) if newest.epoch > epoch => Some(newest),
        // Most may not have heard yet of an election that was told of. That all are behind it means that they were set up anew.
        Some((_, epoch)) => most.filter(|most| most.epoch >= epoch || votes(most) == count),
    }
}

fn words(reply: &[u8]) -> Option<Vec<&str>> {
    let ranges = elements(reply)?;
    let word = |range: std::ops::Range<usize>| std::str::from_utf8(text(&reply[range])?).ok();
    ranges.into_iter().map(word).collect()
}

fn addr(host: &str, port: &str) -> Option<Addr> {
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    Addr::parse(&format!("{host}:{port}")).ok()
}

/// The reply to SENTINEL GET-MASTER-ADDR-BY-NAME.
pub(super) fn primary(reply: &[u8]) -> Option<Addr> {
    match words(reply)?.as_slice() {
        [host, port] => addr(host, port),
        _ => None,
    }
}

fn field<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let mut pairs = words.chunks_exact(2);
    pairs.find_map(|pair| (pair[0] == name).then_some(pair[1]))
}

/// The epoch in the reply to SENTINEL MASTER, whether there is a failover, and where the primary is (the former one until it is over).
pub(super) fn master(reply: &[u8]) -> Option<(u64, bool, Addr)> {
    let words = words(reply)?;
    let mut flags = field(&words, "flags")?.split(',');
    let failing = flags.any(|flag| flag == "failover_in_progress");
    let at = addr(field(&words, "ip")?, field(&words, "port")?)?;
    Some((field(&words, "config-epoch")?.parse().ok()?, failing, at))
}

/// The reply to SENTINEL REPLICAS.
pub(super) fn replicas(reply: &[u8]) -> Option<Vec<Addr>> {
    let one = |range: std::ops::Range<usize>| {
        let words = words(&reply[range])?;
        addr(field(&words, "ip")?, field(&words, "port")?)
    };
    Some(elements(reply)?.into_iter().filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(primary: &str, epoch: u64) -> Answer {
        Answer {
            primary: Addr::parse(primary).unwrap(),
            epoch,
            failing: false,
            replicas: Vec::new(),
        }
    }

    /// `said`: address and epoch of each sentinel that answers, of three.
    fn check(said: &[(&str, u64)], now: Option<(&str, u64)>, expected: Option<&str>) {
        let answers: Vec<Answer> = said.iter().map(|(at, epoch)| answer(at, *epoch)).collect();
        let answers: Vec<&Answer> = answers.iter().collect();
        let taken = now.map(|(at, epoch)| (Addr::parse(at).unwrap(), epoch));
        let now = taken.as_ref().map(|(at, epoch)| (at, *epoch));
        let got = agreed(&answers, 3, now).map(|answer| answer.primary.to_string());
        assert_eq!(got.as_deref(), expected, "{said:?} {now:?}");
    }

    #[test]
    fn most_sentinels_or_a_new_election_decide() {
        check(&[(":1", 0), (":1", 0), (":1", 0)], None, Some(":1"));
        check(&[(":1", 0), (":1", 0)], None, Some(":1"));
        // Most are not there, or don't agree.
        check(&[(":1", 0)], None, None);
        check(&[(":1", 0), (":2", 0)], None, None);
        check(&[], Some((":1", 0)), None);
        // An election: the first that tells of it is enough.
        check(
            &[(":1", 0), (":1", 0), (":2", 1)],
            Some((":1", 0)),
            Some(":2"),
        );
        check(&[(":2", 1)], Some((":1", 0)), Some(":2"));
        // One that was cut off meanwhile.
        check(&[(":1", 0)], Some((":2", 1)), None);
        check(
            &[(":1", 0), (":2", 1), (":2", 1)],
            Some((":2", 1)),
            Some(":2"),
        );
        // Most are behind, and the one that told of the election says nothing just now.
        check(&[(":1", 0), (":1", 0)], Some((":2", 1)), None);
        // All were set up anew.
        check(
            &[(":1", 0), (":1", 0), (":1", 0)],
            Some((":2", 5)),
            Some(":1"),
        );
    }

    #[test]
    fn replies_are_read() {
        let bulk = |all: &[&str]| {
            let mut out = format!("*{}\r\n", all.len());
            all.iter()
                .for_each(|one| out += &format!("${}\r\n{one}\r\n", one.len()));
            out.into_bytes()
        };
        assert_eq!(
            primary(&bulk(&["10.0.0.1", "6379"])).unwrap().to_string(),
            "10.0.0.1:6379"
        );
        assert_eq!(
            primary(&bulk(&["::1", "6379"])).unwrap().to_string(),
            "[::1]:6379"
        );
        assert_eq!(primary(b"*-1\r\n"), None);
        let said = [
            ("flags", "master,o_down,failover_in_progress"),
            ("config-epoch", "7"),
            ("ip", "10.0.0.1"),
            ("port", "1"),
        ];
        let said: Vec<&str> = said
            .iter()
            .flat_map(|(name, value)| [*name, *value])
            .collect();
        let (epoch, failing, at) = master(&bulk(&said)).unwrap();
        assert_eq!(
            (epoch, failing, at.to_string().as_str()),
            (7, true, "10.0.0.1:1")
        );
        let mut list = b"*1\r\n".to_vec();
        list.extend(bulk(&["name", "x", "ip", "10.0.0.2", "port", "1"]));
        assert_eq!(replicas(&list).unwrap()[0].to_string(), "10.0.0.2:1");
        assert_eq!(replicas(b"*0\r\n"), Some(Vec::new()));
    }
}
