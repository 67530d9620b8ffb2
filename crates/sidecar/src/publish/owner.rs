//! `--chown` and `--chmod`: who owns what is published, and who may read it.

use std::fmt;

use podkit_foundation::params::ParamType;

/// `UID:GID`, or `UID` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id; unless given it stays.
    pub gid: Option<u32>,
}

impl ParamType for Owner {
    const TYPE_NAME: &'static str = "owner";
    const EXPECTED: &'static str = "UID or UID:GID, in numbers";

    fn parse(text: &str) -> Result<Self, String> {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        // The last one means "leave it" to chown(2).
        let id = |text: &str| match text.parse() {
            Ok(u32::MAX) | Err(_) => Err(format!("\"{text}\" is not a user or group id")),
            Ok(id) => Ok(id),
        };
        Ok(Self {
            uid: id(uid)?,
            gid: gid.map(id).transpose()?,
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gid {
            Some(gid) => write!(f, "{}:{gid}", self.uid),
            None => write!(f, "{}", self.uid),
        }
    }
}

/// The mode of files, octal; directories can be entered by whom they can be read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// Of a directory, or of a file; one that could be executed still can be, by those who can read it.
    pub fn of(self, directory: bool, executable: bool) -> u32 {
        let read = self.0 & 0o444;
        match directory || executable {
            true => self.0 | (read >> 2),
            false => self.0,
        }
    }
}

impl ParamType for Mode {
    const TYPE_NAME: &'static str = "mode";
    const EXPECTED: &'static str =
        "an octal mode such as 0644 or 0600, which lets the owner read and write";

    fn parse(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).map_err(|_| String::new())?;
        match mode & 0o600 == 0o600 && mode <= 0o777 && !text.starts_with('+') {
            true => Ok(Self(mode)),
            false => Err(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_modes_are_read() {
        let owner = |uid, gid| Ok(Owner { uid, gid });
        assert_eq!(Owner::parse("101"), owner(101, None));
        assert_eq!(Owner::parse("0:65534"), owner(0, Some(65_534)));
        for wrong in ["", "nginx", "1:", ":1", "-1", "4294967295", "1:2:3"] {
            assert!(Owner::parse(wrong).is_err(), "{wrong}");
        }
        let mode = Mode::parse("0640").unwrap();
        assert_eq!(
            (mode.of(false, false), mode.of(true, false)),
            (0o640, 0o750)
        );
        assert_eq!(Mode::parse("600").unwrap().of(false, true), 0o700);
        for wrong in ["", "0444", "u+r", "+644", "1644", "888"] {
            assert!(Mode::parse(wrong).is_err(), "{wrong}");
        }
    }
}
