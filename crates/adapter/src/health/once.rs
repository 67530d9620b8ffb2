//! `--exec`: asks the module that runs, for exec probes.

use std::time::Duration;

use podkit_dataplane::http::{Ask, ask_on};
use podkit_dataplane::module::Once;
use podkit_dataplane::upstream::{Target, dial};
use podkit_foundation::error::Failure;
use podkit_foundation::params::Addr;
use tokio::time::timeout;

/// Bytes of an answer at most.
const MOST_BYTES: usize = 1 << 20;

/// Asks, writes what is said, and fails unless it is 200.
pub(crate) fn ask(listen: Addr, endpoint: &'static str, patience: Duration) -> Once {
    Box::pin(async move {
        let target = Target::of(listen);
        let wrong = |why: String| Failure::Runtime(format!("{} {why}", target.host()));
        let path = format!("/{endpoint}?verbose");
        let asked = async {
            let mut socket = dial(target.addr()).await.map_err(|why| why.to_string())?;
            let ask = Ask {
                method: "GET",
                target: &path,
                fields: &[("Connection", "close")],
                body: b"",
                most: MOST_BYTES,
            };
            ask_on(&mut socket, target.host(), ask).await
        };
        let asked = timeout(patience, asked).await;
        let asked = asked.unwrap_or_else(|_| Err("gives no answer".to_owned()));
        let (got, _) = asked.map_err(|why| wrong(format!("can't be asked: {why}")))?;
        let text = String::from_utf8_lossy(&got.body);
        match got.status {
            200 => {
                // Whoever started it may have closed its output.
                drop(std::io::Write::write_all(
                    &mut std::io::stdout(),
                    text.as_bytes(),
                ));
                Ok(())
            }
            status => Err(wrong(format!(
                "answers {status}: {}",
                text.trim_end().replace('\n', "; ")
            ))),
        }
    })
}
