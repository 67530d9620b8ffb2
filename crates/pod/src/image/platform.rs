//! Which of an index's images is this machine's. (OCI image-spec, image-index.md, "platform")

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `os/architecture[/variant]`, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `GOOS`.
    pub os: String,
    /// `GOARCH`.
    pub architecture: String,
    /// `v7` of `arm`, `v8` of `arm64`, `v3` of `amd64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// With the names that mean the same made one. (containerd/platforms, database.go)
    fn normalised(&self) -> Self {
        let (architecture, variant) = match (
            self.architecture.as_str(),
            self.variant.as_deref().unwrap_or_default(),
        ) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", "v8"),
            ("armhf", _) | ("arm", "7" | "") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            other => other,
        };
        Self {
            os: self.os.to_lowercase(),
            architecture: architecture.to_owned(),
            variant: Some(variant.to_owned()).filter(|variant| !variant.is_empty()),
        }
    }

    /// How well an image for `offered` runs where this is asked for: none, not at all; less is better. A machine runs what
    /// was built for an older variant of its own. (containerd/platforms, compare.go)
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.normalised(), offered.normalised());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        let number = |platform: &Self| -> Option<u32> {
            match platform.variant.as_deref() {
                // Without one it is the first: amd64 is v1.
                None => Some(1),
                Some(variant) => variant.strip_prefix('v')?.parse().ok(),
            }
        };
        if wanted.variant == offered.variant {
            return Some(0);
        }
        match (number(&wanted), number(&offered)) {
            (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no platform; expected such as linux/amd64 or linux/arm/v7");
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(wrong());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(wrong()),
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
        .normalised())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &str, offered: &str, rank: Option<u32>) {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(parse(wanted).rank(&parse(offered)), rank);
    }

    #[test]
    fn the_nearest_variant_that_runs() {
        check("linux/amd64", "linux/amd64", Some(0));
        check("linux/amd64", "linux/x86_64/v1", Some(0));
        check("linux/amd64", "linux/amd64/v3", None);
        check("linux/amd64/v3", "linux/amd64", Some(2));
        check("linux/arm64", "linux/arm64/v8", Some(0));
        check("linux/arm/v7", "linux/arm/v6", Some(1));
        check("linux/arm", "linux/arm/v5", Some(2));
        check("linux/arm/v6", "linux/arm/v7", None);
        check("linux/amd64", "windows/amd64", None);
        check("linux/amd64", "linux/386", None);
    }

    #[test]
    fn texts() {
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(
            "linux/aarch64".parse::<Platform>().unwrap().to_string(),
            "linux/arm64/v8"
        );
    }
}
