//! How large it is: run by hand, of a release build. How fast it is, is measured by `cargo xtask bench metrics`.
//!
//! ```text
//!   cargo test --release -p podkit-adapter --lib statsd::tests::size -- --ignored --nocapture --test-threads 1
//! ```

use super::*;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        << 10
}

#[test]
#[ignore = "a measurement"]
fn bytes_a_series() {
    // What is freed would be used again.
    let mut kept = Vec::new();
    let kinds = [
        (
            "|c with tags",
            1,
            "app.request:1|c|#route:rAT,env:prod,host:web1",
        ),
        ("|c without", 1, "app.request.route.rAT.prod.web1:1|c"),
        (
            "|g with tags",
            1,
            "app.request:1|g|#route:rAT,env:prod,host:web1",
        ),
        (
            "|ms, one time",
            5,
            "app.request:320|ms|#route:rAT,env:prod,host:web1",
        ),
        (
            "|s, one member",
            5,
            "app.request:ann|s|#route:rAT,env:prod,host:web1",
        ),
    ];
    for (what, share, line) in kinds {
        for count in [100_000, 230_000] {
            let count = count / share;
            let before = resident();
            let mut table = Table::new(Mapping::none(0), Dialects::ALL, 1_000_000, [1, 2]);
            for at in 0..count {
                table.packet(line.replace("AT", &at.to_string()).as_bytes());
            }
            assert_eq!(table.len(), count);
            let each = (resident() - before) / count;
            println!("{count} of {what}: {each} bytes each");
            kept.push(table);
        }
    }
}
