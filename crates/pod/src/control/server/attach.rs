//! The first process of a container, its streams joined to a connection. Unlike a command it goes on when the client leaves.

use std::io;
use std::time::Duration;

use serde_json::json;

use super::super::wire::{Attach, Kind, Refusal};
use super::exec::{Given, give, resize};
use super::{Input, Peer};
use crate::runner::{Console, SLOW_MAX, Subject, Typing};

/// How long the last output may take to be read after the container's end. Only what outlives its container holds it open.
const LAST_WORDS: Duration = Duration::from_secs(10);

pub(super) async fn attach(attach: &Attach, subject: &Subject, peer: Peer) -> io::Result<()> {
    let Peer {
        mut input,
        mut output,
    } = peer;
    let console = &subject.running.console;
    let typing = match attach.stdin.then(|| console.type_in()).transpose() {
        Ok(typing) => typing,
        Err(why) => {
            let why = format!("container {}: {why}", attach.container);
            return output.refuse(&Refusal::new("BadRequest", why)).await;
        }
    };
    let mut pieces = console.attach();
    // From here on nothing is missed.
    output.frame(Kind::Output, b"").await?;
    let mut fed = std::pin::pin!(feed(&mut input, typing, console));
    let mut ended = std::pin::pin!(async {
        let _status = subject.running.process.exited().await;
        tokio::time::sleep(LAST_WORDS).await;
    });
    loop {
        tokio::select! {
            piece = pieces.recv() => match piece {
                Some(piece) => {
                    let kind = if piece.errors { Kind::Errors } else { Kind::Output };
                    output.frame(kind, &piece.bytes).await?;
                }
                None if console.ended() => break,
                None => {
                    let seconds = SLOW_MAX.as_secs();
                    let why = format!(
                        "container {}: what it writes was not read for {seconds} s; its log has it",
                        attach.container
                    );
                    return output.refuse(&Refusal::new("TooManyRequests", why)).await;
                }
            },
            gone = &mut fed => return gone,
            () = &mut ended => break,
        }
    }
    output.end(&json!({})).await
}

/// Gives the container what the client sends. Returns when the client is gone.
async fn feed(input: &mut Input, typing: Option<Typing<'_>>, console: &Console) -> io::Result<()> {
    while let Some(frame) = input.next().await? {
        resize(&frame, console.terminal());
        let Some(typing) = typing.as_ref().filter(|_| frame.kind == Kind::Input) else {
            continue;
        };
        if frame.bytes.is_empty() {
            typing.over();
        }
        // Closed: what comes is of no use to anybody.
        if let Some(sink) = typing.sink()
            && let Given::Gone = give(input, &sink, &frame.bytes).await
        {
            return Ok(());
        }
    }
    Ok(())
}
