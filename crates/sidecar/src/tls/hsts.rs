//! `--hsts`: the Strict-Transport-Security field (RFC 6797), written the way durations and options are written here.

use std::fmt;

use podkit_foundation::params::ParamType;

/// A policy: for how long a browser must come by HTTPS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    max_age_seconds: u64,
    include_subdomains: bool,
    preload: bool,
}

/// What browsers' preload lists ask for (hstspreload.org).
const PRELOAD_SECONDS: u64 = 365 * 86_400;

impl Hsts {
    /// The field's value: `max-age=31536000; includeSubDomains; preload`.
    pub fn value(&self) -> String {
        let mut value = format!("max-age={}", self.max_age_seconds);
        if self.include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if self.preload {
            value.push_str("; preload");
        }
        value
    }
}

impl ParamType for Hsts {
    const TYPE_NAME: &'static str = "policy";
    const EXPECTED: &'static str = "a time such as 365d, 12h or 5m (0s takes a former policy back), then ;include-subdomains ;preload";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let age = parts.next().unwrap_or_default();
        let digits = age.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = age.split_at(digits);
        let scale = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "" => return Err("the unit is missing".to_owned()),
            _ => return Err(String::new()),
        };
        let number: u64 = number.parse().map_err(|_| String::new())?;
        let mut policy = Self {
            max_age_seconds: number.checked_mul(scale).ok_or_else(String::new)?,
            include_subdomains: false,
            preload: false,
        };
        for part in parts {
            match part.trim() {
                "include-subdomains" => policy.include_subdomains = true,
                "preload" => policy.preload = true,
                other => return Err(format!("\"{other}\" is not include-subdomains or preload")),
            }
        }
        let preloadable = policy.include_subdomains && policy.max_age_seconds >= PRELOAD_SECONDS;
        if policy.preload && !preloadable {
            return Err(
                "browsers preload only with include-subdomains and at least 365d".to_owned(),
            );
        }
        Ok(policy)
    }
}

impl fmt::Display for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value())
    }
}
