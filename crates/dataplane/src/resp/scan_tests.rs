use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    command_bytes: 1 << 20,
};

fn args(commands: &Commands, bytes: &[u8]) -> Vec<Vec<u8>> {
    let args = commands.args().iter();
    args.map(|range| bytes[range.clone()].to_vec()).collect()
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let line = |kind: &'static str| {
        "[a-z0-9 ]{0,12}".prop_map(move |text| format!("{kind}{text}\r\n").into_bytes())
    };
    let leaf = prop_oneof![
        line("+"),
        line("-ERR "),
        any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| {
            let mut out = Vec::new();
            put_bulk(&mut out, &bytes);
            out
        }),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        (prop::collection::vec(inner, 0..6), "[*~%|]").prop_map(|(values, kind)| {
            let mut out = Vec::new();
            let kind = kind.as_bytes()[0];
            let pairs = matches!(kind, b'%' | b'|');
            put_line(&mut out, kind, values.len());
            for value in &values {
                out.extend_from_slice(value);
                if pairs {
                    out.extend_from_slice(value);
                }
            }
            if kind == b'|' {
                out.extend_from_slice(b":1\r\n");
            }
            out
        })
    })
}

proptest! {
    #[test]
    fn the_ends_of_values_are_noted_or_none(
        replies in prop::collection::vec((reply(), any::<bool>()), 1..6),
        piece in 1..40_usize,
    ) {
        let mut scan = Replies::default();
        for (bytes, wanted) in replies {
            let (mut end, mut found) = (0, None);
            while found.is_none() {
                end = (end + piece).min(bytes.len());
                scan.note(wanted);
                found = scan.next(&bytes[..end]).unwrap();
            }
            let ranges = elements(&bytes).unwrap_or_default();
            let is_nested = ranges.iter().any(|range| b"*~%|>".contains(&bytes[range.start]));
            let ends: Vec<usize> = ranges.iter().map(|range| range.end).collect();
            match wanted && aggregate(&bytes).is_some() {
                true if !is_nested => prop_assert_eq!(scan.ends(), &ends),
                true => prop_assert!(scan.ends().is_empty()),
                false => prop_assert!(!wanted || scan.ends().len() <= 1),
            }
            if !wanted {
                prop_assert!(scan.ends().is_empty());
            }
        }
    }

    #[test]
    fn commands_are_found_in_any_pieces(
        commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..6), 1..6),
        pieces in prop::collection::vec(1..40_usize, 1..80),
    ) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| put_command(&mut bytes, command));
        let (mut found, mut scan) = (Vec::new(), Commands::default());
        let (mut start, mut end) = (0, 0);
        let mut pieces = pieces.iter().cycle();
        while end < bytes.len() {
            end = (end + pieces.next().unwrap()).min(bytes.len());
            while let Found::Command(length) = scan.next(&bytes[start..end], BOUNDS).unwrap() {
                found.push(args(&scan, &bytes[start..]));
                start += length;
            }
        }
        prop_assert_eq!(found, commands);
        prop_assert_eq!(start, bytes.len());
    }

    #[test]
    fn replies_are_found_in_any_pieces(
        replies in prop::collection::vec(reply(), 1..6),
        pieces in prop::collection::vec(1..20_usize, 1..80),
    ) {
        let bytes = replies.concat();
        let (mut lengths, mut scan) = (Vec::new(), Replies::default());
        let (mut start, mut end) = (0, 0);
        let mut pieces = pieces.iter().cycle();
        while end < bytes.len() {
            end = (end + pieces.next().unwrap()).min(bytes.len());
            while let Some((length, _)) = scan.next(&bytes[start..end]).unwrap() {
                lengths.push(length);
                start += length;
            }
        }
        prop_assert_eq!(lengths, replies.iter().map(Vec::len).collect::<Vec<_>>());
    }

    #[test]
    fn anything_is_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in "[*$+:>%|-]?[0-9]{0,3}(\r\n)?") {
        let bytes = [prefix.into_bytes(), bytes].concat();
        let (mut commands, mut replies) = (Commands::default(), Replies::default());
        if let Ok(Found::Command(length) | Found::Inline(length, _)) = commands.next(&bytes, BOUNDS) {
            prop_assert!(length <= bytes.len());
        }
        if let Ok(Some((length, _))) = replies.next(&bytes) {
            prop_assert!(length <= bytes.len());
            elements(&bytes[..length]);
        }
    }
}

#[test]
fn inline_commands_are_split_as_redis_does() {
    let split = |line: &str| match Commands::default().next(line.as_bytes(), BOUNDS) {
        Ok(Found::Inline(_, words)) => Some(
            words
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect::<Vec<_>>(),
        ),
        _ => None,
    };
    assert_eq!(split("PING\r\n").unwrap(), ["PING"]);
    assert_eq!(
        split("  set  a \"b \\x41\\n\" 'it\\'s'\n").unwrap(),
        ["set", "a", "b A\n", "it's"]
    );
    assert_eq!(split("\r\n").unwrap(), Vec::<String>::new());
    assert_eq!(split("get \"a\n"), None);
    assert_eq!(split("get \"a\"b\n"), None);
}

#[test]
fn numbers_of_clients_are_as_redis_writes_them() {
    let check = |bytes: &[u8]| {
        let found = Commands::default().next(bytes, BOUNDS);
        let line = String::from_utf8_lossy(bytes).into_owned();
        assert!(
            matches!(found, Err(why) if why.contains("length")),
            "{line}: {found:?}"
        );
    };
    for wrong in ["+1", "01", "00", "-0", "-01", "+0"] {
        check(format!("*{wrong}\r\n$4\r\nPING\r\n").as_bytes());
        check(format!("*1\r\n${wrong}\r\nPING\r\n").as_bytes());
    }
    let found = Commands::default().next(b"*1\r\n$0\r\n\r\n", BOUNDS);
    assert_eq!(found, Ok(Found::Command(10)));
}

#[test]
fn what_is_no_command_is_refused_in_redis_words() {
    let wrong = |text: &str| {
        Commands::default()
            .next(text.as_bytes(), BOUNDS)
            .unwrap_err()
    };
    assert_eq!(
        wrong("*x\r\n"),
        "ERR Protocol error: invalid multibulk length"
    );
    assert_eq!(
        wrong("*9999999\r\n"),
        "ERR Protocol error: invalid multibulk length"
    );
    assert_eq!(wrong("*1\r\n:1\r\n"), "ERR Protocol error: expected '$'");
    assert_eq!(
        wrong("*1\r\n$-1\r\n"),
        "ERR Protocol error: invalid bulk length"
    );
    assert_eq!(
        wrong("*1\r\n$2000000\r\n"),
        "ERR Protocol error: invalid bulk length"
    );
    let empty = Commands::default().next(b"*0\r\n", BOUNDS);
    assert_eq!(empty, Ok(Found::Command(4)));
}
