//! The module's part of the page at `/`: certificates, clients, the application, live figures.

use std::time::SystemTime;

use podkit_dataplane::module::Section;
use podkit_dataplane::tls::{InForce, Refusal, View, date};

/// The certificates in force, and what was refused, as the alert.
pub(crate) fn certificates(view: &View, now: SystemTime) -> Section {
    let columns = [
        "Name",
        "For",
        "Issuer",
        "Expires",
        "Days left",
        "SHA-256",
        "Notes",
    ];
    Section {
        title: "Certificates".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: view
            .certificates
            .iter()
            .enumerate()
            .map(|(at, one)| row(at, one, now))
            .collect(),
        alert: alert(view, now),
    }
}

fn row(at: usize, in_force: &InForce, now: SystemTime) -> Vec<String> {
    let leaf = &in_force.leaf;
    let mut notes = in_force.warnings.clone();
    if at == 0 {
        notes.insert(0, "default".to_owned());
    }
    if in_force.chain_len > 1 {
        notes.push(format!("chain of {}", in_force.chain_len));
    }
    let issuer = match leaf.issuer == leaf.subject {
        true => "itself".to_owned(),
        false => leaf.issuer.clone(),
    };
    vec![
        in_force.name.clone(),
        leaf.shown_names(),
        issuer,
        date(leaf.not_after),
        leaf.days_left(now).to_string(),
        leaf.fingerprint(),
        notes.join("; "),
    ]
}

fn alert(view: &View, now: SystemTime) -> Option<String> {
    let since = |refusal: &Refusal| {
        let at = refusal
            .since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        date(i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
    };
    let refused = view.refused.iter().map(|refusal| {
        format!(
            "Refused, the former state stays in force: {} (since {}).",
            refusal.line(),
            since(refusal)
        )
    });
    let expiring = view
        .certificates
        .iter()
        .filter(|one| one.leaf.expires_soon(now));
    let expiring = expiring.map(|one| match one.leaf.expired(now) {
        true => format!(
            "The certificate {} has expired ({}).",
            one.name,
            date(one.leaf.not_after)
        ),
        false => format!(
            "The certificate {} expires soon ({}).",
            one.name,
            date(one.leaf.not_after)
        ),
    });
    let all: Vec<String> = refused.chain(expiring).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// The authorities whose clients are let in; None when clients are not asked.
pub(crate) fn clients(view: &View, rules: &[String]) -> Option<Section> {
    if view.authorities.is_empty() {
        return None;
    }
    let mut rows: Vec<Vec<String>> = view
        .authorities
        .iter()
        .map(|authority| {
            let until = date(authority.not_after);
            vec![
                "Authority".to_owned(),
                format!("{}, until {until}", authority.subject),
            ]
        })
        .collect();
    rows.push(vec![
        "Let in".to_owned(),
        match rules {
            [] => "every client of these authorities".to_owned(),
            rules => rules.join(", "),
        },
    ]);
    if let Some(until) = view.crl_until {
        rows.push(vec![
            "Revocation list".to_owned(),
            format!("until {}", date(until)),
        ]);
    }
    Some(Section {
        title: "Clients".to_owned(),
        columns: Vec::new(),
        rows,
        alert: None,
    })
}

/// A list of names and values.
pub(crate) fn list(title: &str, rows: Vec<(&str, String)>) -> Section {
    Section {
        title: title.to_owned(),
        columns: Vec::new(),
        rows: rows
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value])
            .collect(),
        alert: None,
    }
}
