//! Kubernetes' `resource.Quantity`: `500m`, `1.5Gi`, `2e3`.
//!
//! Exact: kept in thousand-millionths as an integer, never a float, rounded up and capped as the API does
//! (apimachinery, `pkg/api/resource/quantity.go`).

use std::fmt;

/// What a text isn't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing there.
    #[error("a quantity is missing")]
    Empty,
    /// No number in front.
    #[error("{0:?} is not a quantity: a number like 2, 0.5 or 1.5, and then a suffix")]
    Number(String),
    /// Something else behind the number.
    #[error("{suffix:?} is not a suffix of a quantity{}; there are n u m k M G T P E, Ki Mi Gi Ti Pi Ei, and exponents like e3", hint(.suffix))]
    Suffix {
        /// What stands behind the number.
        suffix: String,
    },
}

/// Suffixes that people write, and what they mean by them.
fn hint(suffix: &str) -> &'static str {
    match suffix {
        "K" | "kb" | "KB" | "kB" | "ki" | "KiB" => " (did you mean Ki or k?)",
        "MB" | "mb" | "mi" | "MiB" | "Mb" => " (did you mean Mi or M?)",
        "g" | "GB" | "gb" | "gi" | "GiB" | "Gb" => " (did you mean Gi or G?)",
        _ => "",
    }
}

const NANO: i128 = 1_000_000_000;
/// The API caps at 2^63-1.
const MOST: i128 = i64::MAX as i128 * NANO;

/// An amount, in units of 10⁻⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Quantity {
    nano: i128,
}

impl Quantity {
    /// In whole units, rounded up: bytes, cores.
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// In thousandths, rounded up: a core's millis. Capped at `i64::MAX`.
    pub fn milli(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// Not a whole number of units.
    pub fn is_fractional(self) -> bool {
        self.nano % NANO != 0
    }

    /// Below nothing.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Nothing.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    fn scaled(self, unit: i128) -> i64 {
        let up = self.nano.div_euclid(unit) + i128::from(self.nano.rem_euclid(unit) != 0);
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }
}

impl From<u64> for Quantity {
    fn from(units: u64) -> Self {
        Self {
            nano: (i128::from(units) * NANO).min(MOST),
        }
    }
}

/// Units, with a fraction if there is one: for messages.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_fractional() {
            return write!(f, "{}", self.nano / NANO);
        }
        let sign = if self.nano < 0 { "-" } else { "" };
        let (whole, rest) = (self.nano.abs() / NANO, self.nano.abs() % NANO);
        let fraction = format!("{rest:09}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Number(text.to_owned()));
        }
        let (base2, base10) = exponents(suffix).ok_or_else(|| QuantityError::Suffix {
            suffix: suffix.to_owned(),
        })?;
        let nano = nano(whole, fraction, base2, base10);
        Ok(Self {
            nano: if negative { -nano } else { nano },
        })
    }
}

/// A suffix as powers of two and ten.
fn exponents(suffix: &str) -> Option<(u32, i64)> {
    Some(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Beyond this everything is capped or rounded anyway.
            let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);
            (
                0,
                if exponent.starts_with('-') {
                    -size
                } else {
                    size
                },
            )
        }
    })
}

/// `whole.fraction × 2^base2 × 10^base10`, in 10⁻⁹, rounded up, capped.
fn nano(whole: &str, fraction: &str, base2: u32, base10: i64) -> i128 {
    // value = digits × 10^scale; scale in nano.
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let scale = base10 + 9 - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    // 10^28 nano is past the cap; below 10^-19 even 2^60 can't lift the value to a nano, and it rounds up to one.
    if length.saturating_add(scale) > 29 {
        return MOST;
    }
    if length.saturating_add(scale) < -19 {
        return 1;
    }
    // The cap has 28 digits in nanos; 2^60 needs room for 18 more. What is cut off rounds up.
    let room = if base2 > 0 { 20 } else { 37 };
    let kept = &digits[..digits.len().min(room)];
    let cut = digits.len() - kept.len();
    let mut round = digits[kept.len()..].bytes().any(|b| b != b'0');
    let mut value: i128 = kept.parse().unwrap_or(i128::MAX);
    let mut scale = scale + i64::try_from(cut).unwrap_or(i64::MAX);
    if base2 > 0 {
        // 20 digits (67 bits) and 60 bits: 127 bits at most.
        match value.checked_mul(1 << base2) {
            Some(product) => value = product,
            None => return MOST,
        }
    }
    while scale > 0 {
        match value.checked_mul(10) {
            Some(product) if product <= MOST => value = product,
            _ => return MOST,
        }
        scale -= 1;
    }
    while scale < 0 && value > 0 {
        round |= value % 10 != 0;
        value /= 10;
        scale += 1;
    }
    (value + i128::from(round)).min(MOST)
}
