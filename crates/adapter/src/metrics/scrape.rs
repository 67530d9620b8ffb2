//! A scrape: all sources at once, within the budget, as one text.

use std::fmt::Write as _;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use flate2::write::ZlibEncoder;
use flate2::{Compress, Compression};
use podkit_foundation::telemetry::metrics::Format;
use tokio::time::Instant;

use super::batch::Batch;
use super::expose::{Part, Style, expose, expose_to};
use super::keeper::{Keeper, Seen};
use super::own;
use super::spec::{Kind, Spec};

/// What a scrape costs beyond waiting for sources.
const MARGIN: Duration = Duration::from_millis(250);

/// How far the compression looks back (8 KiB): lines are like those just before them, and what is kept for it is in memory twice.
const WINDOW_BITS: u8 = 13;

/// Bytes of text that are compressed together, at least.
const PIECE_BYTES: usize = 8 << 10;

/// A source, or the part of one.
#[derive(Clone)]
pub(crate) struct Member {
    /// Of the source: its name, or what stands for it.
    pub(crate) source: String,
    pub(crate) kind: Kind,
    /// As it was given, for people.
    pub(crate) shown: String,
    /// None: what is asked at each scrape.
    pub(crate) part: Option<String>,
    /// Rendered, for all its samples; empty when the source has no name.
    pub(crate) labels: String,
    pub(crate) keeper: Rc<Keeper>,
}

impl Member {
    /// Of that source, or that part of it.
    pub(crate) fn new(
        spec: &Spec,
        part: Option<String>,
        labels: String,
        keeper: Rc<Keeper>,
    ) -> Self {
        Self {
            source: spec.label().to_owned(),
            kind: spec.scheme.kind,
            shown: spec.to_string(),
            part,
            labels,
            keeper,
        }
    }
}

/// What a scraper wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) format: Format,
    pub(crate) gzip: bool,
    /// Until when it must have its answer.
    pub(crate) until: Instant,
}

impl Wanted {
    /// By its fields: Accept, Accept-Encoding and X-Prometheus-Scrape-Timeout-Seconds. `usual`: the time that it has when it does not
    /// say.
    pub(crate) fn of(
        accept: &str,
        encodings: &str,
        timeout: Option<&str>,
        usual: Duration,
    ) -> Self {
        let said = timeout
            .and_then(|text| text.trim().parse::<f64>().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|time| !time.is_zero());
        let whole = said.unwrap_or(usual).min(Duration::from_secs(3600));
        // At least half of a short time is for the sources.
        let time = whole - MARGIN.min(whole / 2);
        Self {
            format: Format::accepted(accept),
            gzip: takes_gzip(encodings),
            until: Instant::now() + time,
        }
    }
}

/// RFC 9110 section 12.5.3.
fn takes_gzip(encodings: &str) -> bool {
    encodings.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            let quality = part.strip_prefix("q=").map(str::parse::<f32>);
            quality.is_some_and(|quality| quality.unwrap_or(0.0) <= 0.0)
        });
        (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
    })
}

/// Asks all that are asked at each scrape, and waits for them.
pub(crate) async fn ask(members: &[Member], until: Instant) {
    ask_those(members.iter().filter(|member| member.part.is_none()), until).await;
}

/// Asks all, those too that have an interval of their own.
pub(crate) async fn ask_all(members: &[Member], until: Instant) {
    ask_those(members.iter(), until).await;
}

async fn ask_those(members: impl Iterator<Item = &Member>, until: Instant) {
    // Each goes on by itself once it is begun: one after the other they are waited for no longer than the slowest takes.
    let begun: Vec<_> = members
        .map(|member| {
            let keeper = Rc::clone(&member.keeper);
            tokio::task::spawn_local(async move { keeper.fresh(until).await })
        })
        .collect();
    for one in begun {
        // The worst is that what was known before is shown.
        one.await.ok();
    }
}

/// Everything that is known, as text.
pub(crate) fn text(members: &[Member], style: Style, max_age: Duration) -> String {
    with_parts(members, max_age, |parts| expose(parts, style))
}

/// The same, compressed.
pub(crate) fn gzip(members: &[Member], style: Style, max_age: Duration) -> Vec<u8> {
    with_parts(members, max_age, |parts| compressed(parts, style))
}

/// Compressed while it is written, so that the text is never there as a whole; and quickly, as it is read once, by a machine that is near.
fn compressed(parts: &[Part<'_>], style: Style) -> Vec<u8> {
    let state = Compress::new_gzip(Compression::fast(), WINDOW_BITS);
    let mut encoder = ZlibEncoder::new_with_compress(Vec::new(), state);
    let mut take = |piece: &mut String| {
        let taken = encoder.write_all(piece.as_bytes());
        taken.expect("writing to a Vec can't fail");
        piece.clear();
    };
    let mut piece = String::new();
    expose_to(&mut piece, parts, style, |piece| {
        if piece.len() >= PIECE_BYTES {
            take(piece);
        }
    });
    take(&mut piece);
    encoder.finish().expect("writing to a Vec can't fail")
}

/// All that is shown goes to `show`.
fn with_parts<T>(members: &[Member], max_age: Duration, show: impl FnOnce(&[Part<'_>]) -> T) -> T {
    let now = Instant::now();
    let seen: Vec<Seen> = members.iter().map(|member| member.keeper.seen()).collect();
    let own = own::batch(members);
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (member, seen) in members.iter().zip(&seen) {
        if member.part.is_none() {
            parts.push((&member.labels, &seen.status));
        }
        if let Some(taken) = &seen.taken
            && is_shown(seen, now, max_age)
        {
            parts.push((&member.labels, &taken.batch));
        }
    }
    parts.push(("", &own));
    show(&parts)
}

/// What the last answer said is shown: it was the last time that it was asked, or is not too old.
fn is_shown(seen: &Seen, now: Instant, max_age: Duration) -> bool {
    let failed = seen.went.as_ref().is_some_and(|went| went.why.is_some());
    let old = |at: Instant| now.saturating_duration_since(at) > max_age;
    !failed || seen.taken.as_ref().is_some_and(|taken| !old(taken.at))
}

/// What the page of the admin server shows.
pub(crate) fn rows<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<Vec<String>> {
    let now = Instant::now();
    let row = |member: &Member| {
        let seen = member.keeper.seen();
        let state = match &seen.went {
            None => "not asked yet".to_owned(),
            Some(went) => went.why.clone().unwrap_or_else(|| "up".to_owned()),
        };
        let took = seen
            .went
            .map(|went| format!("{:.1} ms", went.took.as_secs_f64() * 1e3));
        let (mut age, mut series) = (String::new(), String::new());
        if let Some(taken) = &seen.taken {
            let seconds = now.saturating_duration_since(taken.at).as_secs_f64();
            let count = |batch: &Batch| -> usize {
                batch.families().iter().map(|one| one.samples.len()).sum()
            };
            write!(age, "{seconds:.0} s").ok();
            write!(series, "{}", count(&taken.batch)).ok();
        }
        let part = member.part.clone().unwrap_or_default();
        vec![
            member.source.clone(),
            part,
            member.shown.clone(),
            state,
            took.unwrap_or_default(),
            age,
            series,
        ]
    };
    members.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn gzip_is_taken_as_it_is_said() {
        for (encodings, taken) in [
            ("", false),
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("*", true),
        ] {
            assert_eq!(takes_gzip(encodings), taken, "{encodings}");
        }
    }

    #[test]
    fn what_is_compressed_in_pieces_is_the_whole_text() {
        let mut batch = Batch::default();
        for number in 0..2000 {
            batch.gauge(&format!("a_{number}"), "Some help.", f64::from(number));
        }
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let style = Style {
                format,
                strict: false,
            };
            let parts = [("source=\"s\"", &batch)];
            let bytes = compressed(&parts, style);
            let mut text = String::new();
            flate2::read::GzDecoder::new(&bytes[..])
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, expose(&parts, style));
            assert!(text.len() > 10 * PIECE_BYTES && bytes.len() * 4 < text.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_the_scrapers() {
        let time = |said: Option<&str>| {
            let wanted = Wanted::of("", "", said, Duration::from_secs(10));
            (wanted.until - Instant::now()).as_millis()
        };
        assert_eq!(time(None), 9750);
        assert_eq!(time(Some("3")), 2750);
        assert_eq!(time(Some("0.2")), 100);
        for none in ["x", "-1", "NaN", "inf", "0"] {
            assert_eq!(time(Some(none)), 9750, "{none}");
        }
    }
}
