//! What the page shows: the servers, what they are and how far; and what became of commands.

use std::sync::Arc;

use podkit_dataplane::module::Section;

use super::cluster::Cluster;
use super::params::Params;
use super::topology::{Member, Shared, View};

const NO_PRIMARY: &str = "No server is known to be the primary: writes wait, at most for --hold";

/// What it is, and how far.
fn role(member: &Member, is_primary: bool) -> (String, String) {
    match &member.state().said {
        None => ("not asked yet".to_owned(), String::new()),
        Some(Err(why)) => (format!("away: {why}"), String::new()),
        Some(Ok(said)) => {
            let role = match (is_primary, said.primary, said.linked) {
                (true, ..) => "primary".to_owned(),
                (false, true, _) => "says primary, and is not taken for it".to_owned(),
                (false, false, true) => format!("replica of {}", said.follows),
                (false, false, false) => format!("replica of {}, cut off", said.follows),
            };
            (role, said.offset.to_string())
        }
    }
}

fn is_primary(view: &View, member: &Arc<Member>) -> bool {
    let primary = view.primary.as_ref();
    primary.is_some_and(|one| Arc::ptr_eq(one, member))
}

fn row(view: &View, member: &Arc<Member>) -> Vec<String> {
    let is_primary = is_primary(view, member);
    let (role, offset) = role(member, is_primary);
    let lag = member.state().lag.filter(|_| !is_primary);
    vec![
        member.name.clone(),
        role,
        offset,
        lag.map_or(String::new(), |lag| format!("{lag} bytes")),
        match member.trip_us() {
            u32::MAX => String::new(),
            trip => format!("{trip} µs"),
        },
        member.as_primary.get().to_string(),
        member.as_replica.get().to_string(),
    ]
}

fn columns(more: &[&str]) -> Vec<String> {
    let columns = [
        "Server",
        "Role",
        "Offset",
        "Lag",
        "Round trip",
        "As primary",
        "As replica",
    ];
    columns
        .iter()
        .chain(more)
        .map(|one| (*one).to_owned())
        .collect()
}

fn line(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

/// What became of commands. The counters are the same for all shards of a cluster.
fn live(params: &Params, shared: Option<&Shared>) -> Vec<Vec<String>> {
    let lag = params
        .max_lag
        .map_or("any".to_owned(), |lag| lag.to_string());
    let mut lines = vec![line(
        "Reads",
        format!("{}; lag at most: {lag}", params.read.word()),
    )];
    let Some(shared) = shared else { return lines };
    lines.extend([
        line("Failovers", shared.failovers.get().to_string()),
        line(
            "Reads that only the primary could answer yet",
            shared.fenced.get().to_string(),
        ),
        line("Reads without a primary", shared.stale.get().to_string()),
        line(
            "Writes sent and not answered",
            shared.uncertain.get().to_string(),
        ),
        line(
            "Commands kept: replayed, expired, refused",
            format!(
                "{}, {}, {}",
                shared.replayed.get(),
                shared.expired.get(),
                shared.turned_away.get()
            ),
        ),
    ]);
    lines
}

/// What is wrong now, in a line.
fn all(alert: Option<String>, problems: Vec<String>) -> Option<String> {
    let all: Vec<String> = alert.into_iter().chain(problems).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Of a primary and its replicas. `open`: how many connections.
pub(super) fn servers(shared: &Shared, open: String, problems: Vec<String>) -> Vec<Section> {
    let view = shared.view();
    let mut rows = live(&shared.params, Some(shared));
    rows.push(line("Connections open", open));
    vec![
        Section {
            title: "Servers".to_owned(),
            columns: columns(&[]),
            rows: view.members.iter().map(|one| row(&view, one)).collect(),
            alert: all(
                view.primary.is_none().then(|| NO_PRIMARY.to_owned()),
                problems,
            ),
        },
        Section {
            title: "Live".to_owned(),
            columns: Vec::new(),
            rows,
            alert: None,
        },
    ]
}

/// How many slots each primary has.
pub(super) fn slots(cluster: &Cluster) -> Vec<(String, usize)> {
    let map = cluster.map();
    let shards = map.shards.iter().zip(map.counts());
    let named = shards.filter_map(|(shard, count)| {
        let primary = shard.shared.view().primary.clone()?;
        Some((primary.name.clone(), count))
    });
    named.collect()
}

/// Of a cluster.
pub(super) fn cluster(cluster: &Cluster, open: String, problems: Vec<String>) -> Vec<Section> {
    let map = cluster.map();
    let (mut rows, mut without) = (Vec::new(), 0);
    let counts = map.counts();
    for (shard, count) in map.shards.iter().zip(&counts) {
        let view = shard.shared.view();
        without += usize::from(view.primary.is_none());
        for member in &view.members {
            let mut row = row(&view, member);
            row.push(shard.number.to_string());
            row.push(match is_primary(&view, member) {
                true => count.to_string(),
                false => String::new(),
            });
            rows.push(row);
        }
    }
    let unserved = map.unserved();
    let alert = match (map.shards.is_empty(), without, unserved) {
        (true, ..) => Some(
            "No node has said who has which slots: commands wait, at most for --hold".to_owned(),
        ),
        (false, 0, 0) => None,
        (false, 0, count) => Some(format!(
            "{count} slots are nobody's: commands for them wait, at most for --hold"
        )),
        (false, count, _) => Some(format!(
            "{count} shards have no primary that is known: writes to them wait, at most for --hold"
        )),
    };
    let shared = map.shards.first().map(|shard| &*shard.shared);
    let mut lines = live(&cluster.params, shared);
    let (turns, views) = (&cluster.redirects, &cluster.refreshes);
    lines.push(line(
        "Sent elsewhere: moved, ask, try again, nobody's",
        format!(
            "{}, {}, {}, {}",
            turns.moved.get(),
            turns.ask.get(),
            turns.try_again.get(),
            turns.unserved.get()
        ),
    ));
    lines.push(line(
        "Answers on who has which slots: same, changed, older",
        format!(
            "{}, {}, {}",
            views.same.get(),
            views.changed.get(),
            views.old.get()
        ),
    ));
    lines.push(line("Connections open", open));
    vec![
        Section {
            title: "Nodes".to_owned(),
            columns: columns(&["Shard", "Slots"]),
            rows,
            alert: all(alert, problems),
        },
        Section {
            title: "Live".to_owned(),
            columns: Vec::new(),
            rows: lines,
            alert: None,
        },
    ]
}
