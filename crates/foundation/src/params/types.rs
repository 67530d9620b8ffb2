//! The types a parameter can have: how each is written, and what it says when it is not.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A single value that can be written as text.
pub trait ParamType: Sized {
    /// The type's name in the reference.
    const TYPE_NAME: &'static str;
    /// What a value looks like, to follow "expected".
    const EXPECTED: &'static str;
    /// A flag of this type needs no value on the command line.
    const SWITCH: bool = false;
    /// The words it may be.
    const CHOICES: &'static [&'static str] = &[];

    /// The value, or why it isn't one (may be empty: the expectation follows anyway).
    fn parse(text: &str) -> Result<Self, String>;

    /// The value in the unit of the bounds, where it has one.
    fn magnitude(&self) -> Option<u64> {
        None
    }
}

/// A value, an optional value or a list of values: what a field can be.
pub trait ParamShape: Sized {
    /// The inner type's name.
    const TYPE_NAME: &'static str;
    /// What a value looks like.
    const EXPECTED: &'static str;
    /// May be left out.
    const OPTIONAL: bool;
    /// May be given more than once.
    const MANY: bool;
    /// Needs no value on the command line.
    const SWITCH: bool;
    /// The words it may be.
    const CHOICES: &'static [&'static str];

    /// Makes the field of all the texts given. An error carries the text and why.
    fn collect(texts: &[&str]) -> Result<Self, (String, String)>;

    /// The magnitudes of all values, for the bounds.
    fn magnitudes(&self) -> Vec<u64>;
}

impl<T: ParamType> ParamShape for T {
    const TYPE_NAME: &'static str = T::TYPE_NAME;
    const EXPECTED: &'static str = T::EXPECTED;
    const OPTIONAL: bool = false;
    const MANY: bool = false;
    const SWITCH: bool = T::SWITCH;
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn collect(texts: &[&str]) -> Result<Self, (String, String)> {
        match texts {
            [] => Err((String::new(), "a value is required".to_owned())),
            [.., last] => T::parse(last).map_err(|why| ((*last).to_owned(), why)),
        }
    }

    fn magnitudes(&self) -> Vec<u64> {
        self.magnitude().into_iter().collect()
    }
}

impl<T: ParamType> ParamShape for Option<T> {
    const TYPE_NAME: &'static str = T::TYPE_NAME;
    const EXPECTED: &'static str = T::EXPECTED;
    const OPTIONAL: bool = true;
    const MANY: bool = false;
    const SWITCH: bool = T::SWITCH;
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn collect(texts: &[&str]) -> Result<Self, (String, String)> {
        match texts {
            [] => Ok(None),
            _ => <T as ParamShape>::collect(texts).map(Some),
        }
    }

    fn magnitudes(&self) -> Vec<u64> {
        self.iter().filter_map(T::magnitude).collect()
    }
}

impl<T: ParamType> ParamShape for Vec<T> {
    const TYPE_NAME: &'static str = T::TYPE_NAME;
    const EXPECTED: &'static str = T::EXPECTED;
    const OPTIONAL: bool = true;
    const MANY: bool = true;
    const SWITCH: bool = false;
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn collect(texts: &[&str]) -> Result<Self, (String, String)> {
        let parse = |text: &&str| T::parse(text).map_err(|why| ((*text).to_owned(), why));
        texts.iter().map(parse).collect()
    }

    fn magnitudes(&self) -> Vec<u64> {
        self.iter().filter_map(T::magnitude).collect()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl ParamType for $type {
            const TYPE_NAME: &'static str = "number";
            const EXPECTED: &'static str = "a whole number";

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| String::new())
            }

            fn magnitude(&self) -> Option<u64> {
                Some((*self).into())
            }
        }
    )*};
}

whole_numbers!(u16, u32, u64);

impl ParamType for bool {
    const TYPE_NAME: &'static str = "switch";
    const EXPECTED: &'static str = "true or false";
    const SWITCH: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(String::new()),
        }
    }
}

impl ParamType for String {
    const TYPE_NAME: &'static str = "text";
    const EXPECTED: &'static str = "a text that is not empty";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err(String::new())
        } else {
            Ok(text.to_owned())
        }
    }
}

impl ParamType for PathBuf {
    const TYPE_NAME: &'static str = "path";
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err(String::new())
        } else {
            Ok(Self::from(text))
        }
    }
}

impl ParamType for Duration {
    const TYPE_NAME: &'static str = "duration";
    const EXPECTED: &'static str = "a duration such as 250ms, 10s, 5m or 1h";

    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let scale: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" if number == "0" => 1,
            "" => return Err("the unit is missing".to_owned()),
            _ => return Err(String::new()),
        };
        let count: u64 = number.parse().map_err(|_| String::new())?;
        count
            .checked_mul(scale)
            .map(Self::from_millis)
            .ok_or_else(String::new)
    }

    fn magnitude(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

/// A duration the way it is typed: the largest unit that loses nothing.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A number of bytes: `64Ki`, `256Mi`, `1Gi`, or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl ParamType for Size {
    const TYPE_NAME: &'static str = "size";
    const EXPECTED: &'static str = "a size such as 64Ki, 256Mi or 1Gi";

    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let scale: u64 = match unit {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(String::new()),
        };
        let count: u64 = number.parse().map_err(|_| String::new())?;
        count.checked_mul(scale).map(Self).ok_or_else(String::new)
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A part of a whole: `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u16);

impl Percent {
    /// 1.0 for all of it.
    pub fn part(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl ParamType for Percent {
    const TYPE_NAME: &'static str = "percent";
    const EXPECTED: &'static str = "a whole number of percent such as 20%";

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').ok_or("the % is missing")?;
        number.parse().map(Self).map_err(|_| String::new())
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.0.into())
    }
}

/// Events in a time: `100/s`, `5000/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In what time.
    pub per: Duration,
}

impl ParamType for Rate {
    const TYPE_NAME: &'static str = "rate";
    const EXPECTED: &'static str = "a rate such as 100/s, 5000/m or 10/h";

    fn parse(text: &str) -> Result<Self, String> {
        let (count, per) = text.split_once('/').ok_or_else(String::new)?;
        let per = match per {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return Err(String::new()),
        };
        Ok(Self {
            count: count.parse().map_err(|_| String::new())?,
            per,
        })
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.count)
    }
}

/// A factor with up to two digits after the point: `1.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor {
    hundredths: u32,
}

impl Factor {
    /// As a number.
    pub fn number(self) -> f64 {
        f64::from(self.hundredths) / 100.0
    }
}

impl ParamType for Factor {
    const TYPE_NAME: &'static str = "factor";
    const EXPECTED: &'static str = "a number such as 1.25, more than 1 and at most 100";

    fn parse(text: &str) -> Result<Self, String> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 2 {
            return Err(String::new());
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| String::new());
        let scale = if part.len() == 1 { 10 } else { 1 };
        let hundredths = number(whole)? * 100 + number(part)? * scale;
        match hundredths {
            101..=10_000 => Ok(Self { hundredths }),
            _ => Err(String::new()),
        }
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}
