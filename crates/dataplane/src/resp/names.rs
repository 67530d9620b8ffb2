//! The command of a name: asked for each command that comes, so it compares few letters and calls nothing.

use std::sync::OnceLock;

use super::commands::{COMMANDS, Command};

/// The command of a name, whatever the case of its letters.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    static BY_NAME: OnceLock<ByName> = OnceLock::new();
    BY_NAME.get_or_init(ByName::new).find(name)
}

/// Places for names: a power of two, several for each command.
const PLACES: usize = 1024;

/// All commands, each at the place that its name's number says, or at the next one that is free.
struct ByName([Option<&'static Command>; PLACES]);

impl ByName {
    fn new() -> Self {
        let mut places = [None; PLACES];
        for command in COMMANDS {
            let mut at = Self::place(command.name.as_bytes());
            while places[at].is_some() {
                at = (at + 1) % PLACES;
            }
            places[at] = Some(command);
        }
        Self(places)
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<&'static Command> {
        let mut at = Self::place(name);
        while let Some(command) = self.0[at] {
            if is_called(command, name) {
                return Some(command);
            }
            at = (at + 1) % PLACES;
        }
        None
    }

    /// The names are our own, so that nobody can choose ones that collide.
    #[inline]
    fn place(name: &[u8]) -> usize {
        let step = |number: u32, byte: &u8| number.wrapping_mul(31) ^ u32::from(byte | 0x20);
        let number = name.iter().take(LONGEST).fold(0, step);
        (number.wrapping_mul(0x9e37_79b1) >> 16) as usize % PLACES
    }
}

/// Letters of a name that make its number.
const LONGEST: usize = 24;

/// Letter by letter: names are too short for it to pay to call what compares many bytes at once.
#[inline]
fn is_called(command: &Command, name: &[u8]) -> bool {
    let own = command.name.as_bytes();
    let mut both = own.iter().zip(name);
    own.len() == name.len() && both.all(|(own, byte)| *own == byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_found_whatever_the_case() {
        for command in COMMANDS {
            let upper = command.name.to_ascii_uppercase();
            for name in [command.name, &upper] {
                assert!(find(name.as_bytes()).is_some_and(|found| std::ptr::eq(found, command)));
            }
            let longer = format!("{}x", command.name);
            assert!(find(longer.as_bytes()).is_none_or(|found| found.name == longer));
            // Bytes that only look alike when a bit is left out.
            let other: Vec<u8> = command.name.bytes().map(|byte| byte ^ 0x80).collect();
            assert!(find(&other).is_none());
        }
        assert!(find(b"").is_none());
        assert!(find(&[b'a'; 100]).is_none());
        assert!(find(b"get\0").is_none());
        assert!(find(b"config\rset").is_none());
        let sorted = COMMANDS.windows(2).all(|two| two[0].name < two[1].name);
        assert!(sorted, "one name comes twice, or out of order");
    }
}
