use std::io;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::asker::{Question, exchange};
use super::lease::{Leases, Taken};
use super::owner::Owner;
use super::wire::{self, Answer, Ask, FRAME, Role, Secret};
use crate::limit::gcra::Gcra;
use crate::limit::table::Table;

const SECOND: u64 = 1_000_000_000;

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes())
}

fn owner() -> Owner {
    Owner {
        table: Arc::new(Table::new(100)),
        begin: Instant::now(),
    }
}

/// Of a rule of 10/s and this burst.
fn ask(burst: u64, cost: u64, wanted: u64) -> Ask {
    Ask {
        tag: 7,
        interval: SECOND / 10,
        burst,
        cost,
        wanted,
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_grants_what_there_is_in_whole_requests() {
    let owner = owner();
    let granted = |ask: Ask| owner.answer(&ask).map(|answer| answer.granted);
    assert_eq!(granted(ask(10, 3, 6)), Some(6));
    assert_eq!(granted(ask(10, 3, 6)), Some(3), "four are left");
    let refused = owner.answer(&ask(10, 3, 6)).unwrap();
    assert_eq!((refused.granted, refused.remaining), (0, 1));
    assert_eq!(refused.retry_after, SECOND / 5);
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(granted(ask(10, 3, 3)), Some(3));
    // What no rule can make.
    assert_eq!(granted(ask(10, 0, 1)), None);
    assert_eq!(granted(ask(10, 11, 11)), None);
    assert_eq!(granted(ask(10, 2, 1)), None);
    assert_eq!(
        granted(Ask {
            interval: 0,
            ..ask(10, 1, 1)
        }),
        None
    );
    assert_eq!(
        granted(Ask {
            tag: 0,
            ..ask(10, 1, 1)
        }),
        None
    );
    assert_eq!(granted(ask(u64::MAX, 1, 1)), None);
}

fn answer(granted: u64, retry_after: u64) -> Answer {
    Answer {
        granted,
        remaining: 0,
        full_after: SECOND,
        more_after: 1,
        retry_after,
    }
}

#[test]
fn batches_double_while_they_are_spent_fast_and_stay_small_for_low_rates() {
    let batches = |count: u64, burst: u64, cost: u64| {
        let gcra = Gcra::new(count, Duration::from_secs(1), burst).unwrap();
        let (mut leases, mut seen) = (Leases::new(), Vec::new());
        // A request each 10 microseconds.
        for now in (SECOND..).step_by(10_000).take(1_000) {
            if let Taken::Ask(wanted) = leases.take(1, &gcra, now, cost) {
                seen.push(wanted);
                let ask = Ask {
                    tag: 1,
                    interval: gcra.interval(),
                    burst,
                    cost,
                    wanted,
                };
                leases.put(&ask, &answer(wanted, 0), now);
                assert!(matches!(leases.take(1, &gcra, now, cost), Taken::Known(it) if it.allowed));
            }
        }
        seen.truncate(6);
        seen
    };
    assert_eq!(batches(10_000, 10_000, 1), [1, 2, 4, 8, 16, 32]);
    assert_eq!(batches(10_000, 80, 1), [1, 2, 4, 8, 10, 10]);
    assert_eq!(batches(10_000, 80, 3), [3, 6, 9, 9, 9, 9]);
    assert_eq!(batches(10, 10_000, 1), [1; 6], "each is asked for");
    assert_eq!(batches(10_000, 7, 1), [1; 6]);
}

#[test]
fn refusals_are_remembered_and_old_units_are_not_spent() {
    let gcra = Gcra::new(10, Duration::from_secs(1), 10).unwrap();
    let mut leases = Leases::new();
    let take = |leases: &mut Leases, now| leases.take(7, &gcra, now, 1);
    leases.put(&ask(10, 1, 1), &answer(0, SECOND / 10), SECOND);
    let Taken::Known(refused) = take(&mut leases, SECOND + SECOND / 20) else {
        panic!("it is known");
    };
    assert_eq!((refused.allowed, refused.retry_after), (false, SECOND / 20));
    assert_eq!(take(&mut leases, SECOND + SECOND / 10), Taken::Ask(1));
    // At least 20 ms, where the burst is long enough.
    leases.put(&ask(10, 1, 1), &answer(0, 1), 2 * SECOND);
    assert!(matches!(
        take(&mut leases, 2 * SECOND + 19_999_999),
        Taken::Known(_)
    ));
    assert_eq!(take(&mut leases, 2 * SECOND + 20_000_000), Taken::Ask(1));
    // Units are spent once, and within a second.
    leases.put(&ask(10, 1, 2), &answer(2, 0), 3 * SECOND);
    assert!(matches!(take(&mut leases, 3 * SECOND), Taken::Known(it) if it.allowed));
    assert!(matches!(take(&mut leases, 4 * SECOND), Taken::Ask(_)));
    // Another key in the same place.
    assert_eq!(leases.take(7 + 4096, &gcra, 3 * SECOND, 1), Taken::Ask(1));
}

/// What an asker and an owner with these secrets come to.
async fn shaken(asker: &str, owner_secret: &str) -> [Option<String>; 2] {
    let (near, far) = duplex(4096);
    let (asker, owner_secret) = (secret(asker), secret(owner_secret));
    let (ours, theirs) = tokio::join!(
        wire::shake(near, &asker, Role::Asker),
        wire::shake(far, &owner_secret, Role::Owner)
    );
    [
        ours.err().map(|error| error.to_string()),
        theirs.err().map(|error| error.to_string()),
    ]
}

#[tokio::test]
async fn only_who_knows_the_secret_is_answered() {
    assert_eq!(shaken("right", "right").await, [None, None]);
    let [ours, theirs] = shaken("wrong", "right").await;
    // Nothing was proved to the stranger.
    assert!(ours.unwrap().contains("eof"), "the owner has closed");
    assert!(theirs.unwrap().contains("does not know the secret"));
    // Who sends back what it gets proves nothing.
    for role in [Role::Asker, Role::Owner] {
        let known = secret("right");
        let (near, far) = duplex(4096);
        let echo = async {
            let (mut read, mut write) = tokio::io::split(far);
            tokio::io::copy(&mut read, &mut write).await.ok();
        };
        let shake =
            tokio::time::timeout(Duration::from_millis(200), wire::shake(near, &known, role));
        let came = tokio::select! {
            came = shake => came,
            () = echo => panic!("the mirror does not end"),
        };
        assert!(!matches!(came, Ok(Ok(_))), "{role:?}");
    }
    // Another protocol.
    let (near, mut far) = duplex(4096);
    far.write_all(&[b'x'; 200]).await.unwrap();
    let known = secret("right");
    let why = wire::shake(near, &known, Role::Asker).await.err().unwrap();
    assert!(why.to_string().contains("version 1"), "{why}");
}

/// What an owner says to a connection whose asker's bytes behind the proofs went through `change`.
async fn tampered(change: impl Fn(Vec<u8>) -> Vec<u8>) -> io::Result<()> {
    let (near, mut middle_near) = duplex(4096);
    let (mut middle_far, far) = duplex(4096);
    let known = secret("right");
    let serving = owner();
    let middle = async {
        let mut hellos = [0; 40 + 32];
        // The hellos cross, then the proofs, asker's first.
        middle_near.read_exact(&mut hellos[..40]).await?;
        middle_far.write_all(&hellos[..40]).await?;
        middle_far.read_exact(&mut hellos[..40]).await?;
        middle_near.write_all(&hellos[..40]).await?;
        middle_near.read_exact(&mut hellos[40..]).await?;
        middle_far.write_all(&hellos[40..]).await?;
        middle_far.read_exact(&mut hellos[40..]).await?;
        middle_near.write_all(&hellos[40..]).await?;
        let mut frames = vec![0; 2 * FRAME];
        middle_near.read_exact(&mut frames).await?;
        middle_far.write_all(&change(frames)).await?;
        middle_far.shutdown().await?;
        // What the owner answers has room.
        let mut rest = Vec::new();
        middle_far.read_to_end(&mut rest).await?;
        io::Result::Ok(rest)
    };
    let asking = async {
        let (reader, mut writer) = wire::shake::<DuplexStream>(near, &known, Role::Asker).await?;
        writer.put(&ask(10, 1, 1));
        writer.put(&ask(10, 1, 2));
        writer.flush().await?;
        io::Result::Ok((reader, writer))
    };
    let (served, _, asked) = tokio::join!(serving.serve_one(far, &known), middle, asking);
    asked?;
    served
}

#[tokio::test]
async fn a_frame_is_good_once_and_in_its_place() {
    tampered(|frames| frames).await.unwrap();
    let refused = |result: io::Result<()>| {
        let why = result.unwrap_err().to_string();
        assert!(why.contains("not the next one"), "{why}");
    };
    // Played again, swapped, left out, changed.
    refused(tampered(|frames| [&frames[..FRAME], &frames[..FRAME]].concat()).await);
    refused(tampered(|frames| [&frames[FRAME..], &frames[..FRAME]].concat()).await);
    refused(tampered(|frames| frames[FRAME..].to_vec()).await);
    refused(
        tampered(|mut frames| {
            frames[39] ^= 1;
            frames
        })
        .await,
    );
    let cut = tampered(|frames| frames[..FRAME + 10].to_vec()).await;
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

/// An asker's connection to `far`, and one question.
async fn asked(
    far: impl Future<Output = ()>,
    near: DuplexStream,
) -> (io::Result<()>, Option<Answer>) {
    let known = secret("right");
    let (send, questions) = mpsc::channel(4);
    let (reply, answered) = oneshot::channel();
    let ask = ask(10, 1, 1);
    send.try_send(Question { ask, reply }).ok();
    let link = async {
        // What it has not taken is dismissed with it.
        let mut questions = questions;
        let (reader, writer) = wire::shake(near, &known, Role::Asker).await?;
        exchange(reader, writer, &mut questions, Duration::from_millis(50)).await
    };
    let link = async {
        tokio::select! {
            ended = link => ended,
            () = async { far.await; std::future::pending().await } => Ok(()),
        }
    };
    let answer = async {
        let answer = answered.await.ok();
        // Nobody asks any more: the connection ends.
        drop(send);
        answer
    };
    tokio::join!(link, answer)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_late_or_goes_is_lost_and_its_questions_are_dismissed() {
    let known = secret("right");
    let serving = owner();
    let (near, far) = duplex(4096);
    let serve = async { serving.serve_one(far, &known).await.unwrap_or_default() };
    let (ended, answer) = asked(serve, near).await;
    assert!(ended.is_ok());
    assert_eq!(answer.map(|it| (it.granted, it.remaining)), Some((1, 9)));

    let begin = Instant::now();
    let (near, far) = duplex(4096);
    let silent = async {
        let kept = wire::shake(far, &known, Role::Owner).await;
        std::future::pending::<()>().await;
        drop(kept);
    };
    let (ended, answer) = asked(silent, near).await;
    assert!(ended.unwrap_err().to_string().contains("within 50 ms"));
    assert_eq!((answer, begin.elapsed()), (None, Duration::from_millis(50)));

    let (near, far) = duplex(4096);
    let gone = async { drop(wire::shake(far, &known, Role::Owner).await) };
    let (ended, answer) = asked(gone, near).await;
    assert!(ended.is_err());
    assert_eq!(answer, None);
}

/// How one end takes `bytes` in pieces: the shake, and frames until their end. Never longer than what came.
fn taken(role: Role, right: bool, bytes: &[u8], pieces: &[usize]) -> (bool, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let known = secret("right");
        let (near, mut far) = duplex(256);
        let send = async {
            // A peer that knows the secret comes as far as frames; another one sends what it likes from the start.
            if right {
                let other = match role {
                    Role::Asker => Role::Owner,
                    Role::Owner => Role::Asker,
                };
                drop(wire::shake(&mut far, &known, other).await);
            }
            let mut rest = bytes;
            let mut sizes = pieces.iter().cycle();
            while !rest.is_empty() {
                let size = sizes
                    .next()
                    .map_or(rest.len(), |size| (*size).min(rest.len()));
                let (piece, after) = rest.split_at(size);
                if far.write_all(piece).await.is_err() {
                    return;
                }
                rest = after;
            }
            drop(far.shutdown().await);
            // What it writes has room.
            drop(tokio::io::copy(&mut far, &mut tokio::io::sink()).await);
        };
        let take = async {
            let Ok((mut reader, _writer)) = wire::shake(near, &known, role).await else {
                return (false, 0);
            };
            let mut frames = 0;
            while let Ok(Some(_)) = reader.next::<Ask>().await {
                frames += 1;
                assert!(reader.held() <= 64 * FRAME, "{} are held", reader.held());
            }
            (true, frames)
        };
        tokio::select! {
            taken = take => taken,
            () = async { send.await; std::future::pending().await } => unreachable!(),
        }
    })
}

proptest! {
    /// Whatever comes, in whatever pieces: no panic, no frame that nobody sealed, no end that is not found.
    #[test]
    fn arbitrary_bytes_are_refused(
        is_asker: bool,
        right: bool,
        hello: bool,
        mut bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        pieces in proptest::collection::vec(1_usize..200, 1..8),
    ) {
        let role = if is_asker { Role::Asker } else { Role::Owner };
        if hello && !right {
            // The begin is right: what is refused is the proof.
            bytes.splice(..bytes.len().min(8), *b"podkit\x001");
        }
        let (shaken, frames) = taken(role, right, &bytes, &pieces);
        prop_assert_eq!((shaken, frames), (right, 0));
    }

    /// An ask that came well may still be one that no rule can make: it is answered within its own bounds, or refused.
    #[test]
    fn any_ask_is_answered_within_its_bounds_or_not_at_all(
        tag: u64, interval: u64, burst: u64, cost: u64, wanted: u64, small: bool,
    ) {
        let least = |number: u64| if small { number % 100 } else { number };
        let ask = Ask {
            tag,
            interval: least(interval),
            burst: least(burst),
            cost: least(cost),
            wanted: least(wanted),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(async { owner().answer(&ask) });
        if let Some(answer) = answer {
            prop_assert!(answer.granted <= ask.wanted && answer.granted <= ask.burst);
            prop_assert_eq!(answer.granted % ask.cost, 0);
        }
    }
}
