use proptest::prelude::*;

use super::*;

const HEADERS: u8 = 1;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// A frame of stream 1 with so many bytes behind its header.
fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
    let [.., a, b, c] = (len as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
    // What would be a PING if it were taken for a header.
    bytes.resize(FRAME_HEADER_BYTES + len, PING);
    bytes
}

fn follow(burst: u64) -> Flood {
    Flood::new(0, burst, Duration::from_millis(100), Instant::now())
}

/// How many of the same frame pass with a budget of three; ten are tried.
fn passed(kind: u8, flags: u8, len: usize) -> usize {
    let (mut flood, now) = (follow(3), Instant::now());
    let one = frame(kind, flags, len);
    (0..10).take_while(|_| flood.take(&one, || now)).count()
}

#[test]
fn what_carries_nothing_is_paid_for() {
    for (kind, flags, len) in [
        (PING, 0, 8),
        (SETTINGS, 0, 0),
        (SETTINGS, 0, 6),
        (PRIORITY, 0, 5),
        (RST_STREAM, 0, 4),
        (DATA, 0, 0),
        (CONTINUATION, 0, 0),
        (WINDOW_UPDATE, 0, 4),
        // Of a kind that nobody knows.
        (10, 0, 0),
        (255, 0, 100),
    ] {
        assert_eq!(passed(kind, flags, len), 3, "kind {kind} of {len}");
    }
}

#[test]
fn streams_that_the_peer_makes_us_break_off_are_paid_for() {
    let (mut flood, now) = (follow(3), Instant::now());
    assert!(flood.faults(0, || now));
    assert!(flood.faults(2, || now) && flood.take(&frame(PING, 0, 8), || now));
    assert!(!flood.faults(1, || now));
    let later = now + Duration::from_millis(250);
    assert!(flood.faults(2, || later) && !flood.faults(1, || later));
}

#[test]
fn what_carries_something_is_free() {
    for (kind, flags, len) in [
        (HEADERS, 0, 10),
        (HEADERS, END_STREAM, 10),
        (CONTINUATION, 0, 1),
        (DATA, 0, 1),
        (DATA, END_STREAM, 0),
        // Answers to what we sent.
        (PING, ACK, 8),
        (SETTINGS, ACK, 0),
    ] {
        assert_eq!(passed(kind, flags, len), 10, "kind {kind} of {len}");
    }
}

#[test]
fn window_updates_are_earned_by_what_was_sent() {
    let (mut flood, now) = (follow(0), Instant::now());
    // Without a payload: behind a frame that is one too many nothing is followed any more.
    let update = frame(WINDOW_UPDATE, 0, 0);
    assert!(!flood.take(&update, || now), "nothing was sent");
    flood.sent(SENT_PER_UPDATE as usize * 3 - 1);
    assert!(flood.take(&update, || now));
    assert!(flood.take(&update, || now));
    assert!(!flood.take(&update, || now), "a byte is missing");
    flood.sent(1);
    assert!(flood.take(&update, || now));
    // And are not paid for then.
    let (mut flood, now) = (follow(1), Instant::now());
    flood.sent(SENT_PER_UPDATE as usize);
    assert!(flood.take(&update, || now));
    assert!(flood.take(&frame(PING, 0, 8), || now));
    assert!(!flood.take(&frame(PING, 0, 8), || now));
}

#[test]
fn time_refills_up_to_the_burst() {
    let start = Instant::now();
    let mut flood = Flood::new(0, 3, Duration::from_millis(100), start);
    let ping = frame(PING, 0, 0);
    let at = |millis| start + Duration::from_millis(millis);
    let mut pings = |millis| {
        (0..9)
            .take_while(|_| flood.take(&ping, || at(millis)))
            .count()
    };
    assert_eq!(pings(0), 3, "the burst");
    assert_eq!(pings(99), 0, "too early for one");
    // What was refused counts from then on.
    assert_eq!(pings(198), 0);
    assert_eq!(pings(298), 1);
    assert_eq!(pings(598), 3);
    assert_eq!(pings(100_000), 3, "never more than the burst");
}

#[test]
fn the_clock_is_asked_only_when_the_budget_is_spent() {
    let mut flood = follow(2);
    let ping = frame(PING, 0, 8);
    assert!(flood.take(&ping, || unreachable!("there is a budget")));
    assert!(flood.take(&ping, || unreachable!("there is a budget")));
}

#[test]
fn the_preface_is_skipped() {
    let now = Instant::now();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 12));
    bytes.extend(frame(PING, 0, 8));
    let follow = || Flood::new(PREFACE.len(), 1, Duration::from_secs(1), now);
    assert!(!follow().take(&bytes, || now), "two frames");
    bytes.truncate(PREFACE.len() + FRAME_HEADER_BYTES + 12);
    assert!(follow().take(&bytes, || now), "one frame");
}

/// Frames of any kind, and what of each is paid for.
fn frames() -> impl Strategy<Value = Vec<(u8, u8, usize)>> {
    proptest::collection::vec((0..12_u8, 0..2_u8, 0..40_usize), 0..40)
}

proptest! {
    #[test]
    fn however_it_is_cut(frames in frames(), cuts in proptest::collection::vec(1..30_usize, 1..10), burst in 0..20_u64) {
        let now = Instant::now();
        let all: Vec<u8> = frames.iter().flat_map(|(kind, flags, len)| frame(*kind, *flags, *len)).collect();
        let whole = follow(burst).take(&all, || now);
        let (mut flood, mut rest, mut pieces) = (follow(burst), &all[..], true);
        for size in cuts.iter().cycle() {
            if rest.is_empty() || !pieces {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            pieces = flood.take(piece, || now);
            rest = after;
        }
        prop_assert_eq!(pieces, whole);
        // No frame's payload is taken for a frame.
        let idle = frames.iter().filter(|(kind, flags, len)| follow(9).is_idle_of(*kind, *flags, *len));
        prop_assert_eq!(whole, idle.count() as u64 <= burst);
    }
}

impl Flood {
    fn is_idle_of(&mut self, kind: u8, flags: u8, len: usize) -> bool {
        self.skip = len;
        self.is_idle(kind, flags)
    }
}
