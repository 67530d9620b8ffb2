//! When a worker of `podkit shard` sleeps, and how long.

use std::time::Duration;

use podkit_testkit::machine::cpu_time;
use podkit_testkit::redis::Client;
use podkit_testkit::until;

use crate::shard::Ground;

/// It looks for replies for as long as it was told, and then sleeps.
#[test]
fn a_worker_that_looks_for_replies_sleeps_in_the_end() {
    let Some(ground) = Ground::start(2, &["--busy-poll=10ms"]) else {
        return;
    };
    let pid = ground.module.process.pid();
    let mut client = ground.client();
    let before = cpu_time(pid);
    for at in 0..50 {
        assert_eq!(client.line(&format!("set k{at} v")), "OK");
        std::thread::sleep(Duration::from_millis(10));
    }
    let busy = cpu_time(pid) - before;
    std::thread::sleep(Duration::from_millis(100));
    let before = cpu_time(pid);
    std::thread::sleep(Duration::from_millis(500));
    let idle = cpu_time(pid) - before;
    assert!(
        busy > Duration::from_millis(100) && idle < Duration::from_millis(50),
        "{busy:?} while asked, {idle:?} after it"
    );
}

/// Eagerly: their commands are gathered; those of one client never are.
#[test]
fn only_where_many_ask_a_worker_waits_for_more() {
    for (more, waits) in [("--coalesce=eager", true), ("--coalesce=never", false)] {
        let Some(ground) = Ground::start(1, &[more]) else {
            return;
        };
        let slept = || ground.module.metric("podkit_coalesced_sleeps_total");
        let mut clients: Vec<Client> = (0..50).map(|_| ground.client()).collect();
        for at in 0..500 {
            assert_eq!(clients[0].line(&format!("set k {at}")), "OK");
        }
        assert_eq!(slept().unwrap_or_default(), 0.0);
        let mut round = || {
            for client in &mut clients {
                client.send(&["GET", "k"]);
            }
            for client in &mut clients {
                assert_eq!(client.reply().unwrap().to_string(), "499");
            }
        };
        match waits {
            true => until("it waits for more", || {
                (0..20).for_each(|_| round());
                slept().filter(|count| *count > 0.0)
            }),
            false => {
                (0..200).for_each(|_| round());
                assert_eq!(slept(), None);
                0.0
            }
        };
    }
}
