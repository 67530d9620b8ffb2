//! Names of signals: those of `lifecycle.stopSignal`, and what an image's `StopSignal` may be. (Kubernetes: `core.Signal`;
//! moby/sys: `signal.ParseSignal`)

use super::Signal;
use crate::sys::{RTMAX, RTMIN, signal_of};

/// signal(7) of x86-64 and arm64, which agree.
const NAMES: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];
/// `SIGRTMIN+15` and `SIGRTMAX-14` are the last that have a name.
const RT_STEPS: (i32, i32) = (15, 14);

/// A signal as a Pod names it: `SIGTERM`, `SIGRTMIN+3`.
pub fn stop_signal(name: &str) -> Option<Signal> {
    number(name.strip_prefix("SIG")?).and_then(signal_of)
}

/// As an image's configuration names it: with or without `SIG`, in any case, or a number.
pub fn image_stop_signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse() {
        return signal_of(number);
    }
    let name = text.to_ascii_uppercase();
    number(name.strip_prefix("SIG").unwrap_or(&name)).and_then(signal_of)
}

fn number(bare: &str) -> Option<i32> {
    let steps = |text: &str, most: i32| {
        let plain = !text.starts_with(['0', '+', '-']);
        let steps: i32 = text.parse().ok()?;
        (plain && (1..=most).contains(&steps)).then_some(steps)
    };
    match bare {
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        _ => {
            if let Some(rest) = bare.strip_prefix("RTMIN+") {
                return Some(RTMIN + steps(rest, RT_STEPS.0)?);
            }
            if let Some(rest) = bare.strip_prefix("RTMAX-") {
                return Some(RTMAX - steps(rest, RT_STEPS.1)?);
            }
            let (_, number) = NAMES.iter().find(|(name, _)| *name == bare)?;
            Some(*number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_api_names_them() {
        let number = |name: &str| stop_signal(name).map(Signal::as_raw);
        assert_eq!(number("SIGTERM"), Some(15));
        assert_eq!(number("SIGUSR1"), Some(10));
        assert_eq!(number("SIGRTMIN"), Some(34));
        assert_eq!(number("SIGRTMIN+3"), Some(37));
        assert_eq!(number("SIGRTMAX-14"), Some(50));
        assert_eq!(number("SIGRTMAX"), Some(64));
        for wrong in [
            "TERM",
            "15",
            "sigterm",
            "SIGRTMIN+16",
            "SIGRTMIN+03",
            "SIGRTMAX-15",
            "SIG",
            "",
        ] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
        assert!(
            NAMES
                .iter()
                .all(|(name, _)| number(&format!("SIG{name}")).is_some())
        );
    }

    #[test]
    fn as_images_name_them() {
        let number = |name: &str| image_stop_signal(name).map(Signal::as_raw);
        assert_eq!(number("9"), Some(9));
        assert_eq!(number("sigquit"), Some(3));
        assert_eq!(number("QUIT"), Some(3));
        assert_eq!(number("RTMIN+3"), Some(37));
        assert_eq!(number("65"), None);
        assert_eq!(number("0"), None);
    }
}
