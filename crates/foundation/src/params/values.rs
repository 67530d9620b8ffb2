//! The texts that were given for parameters, where each came from, and how one becomes a typed field.

use std::collections::BTreeMap;
use std::fmt;

use super::decl::Param;
use super::types::ParamShape;
use crate::secret::{MASK, masked, masked_about, masked_value};

/// Where a text came from. Flag beats variable beats default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// The declaration.
    Default,
}

/// One text with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// As given.
    pub text: String,
    /// By whom.
    pub origin: Origin,
}

/// All texts of a module's parameters, by field.
#[derive(Debug, Clone, Default)]
pub struct Values {
    given: BTreeMap<&'static str, (Param, Vec<Raw>)>,
}

/// A parameter that is wrong: one line with the flag, the variable, the value and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamError {
    field: String,
    why: String,
}

impl ParamError {
    /// For a value that has the right form and is wrong all the same (a file that can't be read, two
    /// parameters that exclude each other): `why` says what is wrong and what would be right. Passwords in it are not shown.
    pub fn new(field: &str, why: impl fmt::Display) -> Self {
        Self {
            field: field.trim_start_matches("r#").to_owned(),
            why: masked(&why.to_string()).into_owned(),
        }
    }

    /// The flag without its dashes.
    pub fn flag(&self) -> String {
        self.field.replace('_', "-")
    }

    /// What is wrong, and what would be right.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flag, variable) = (self.flag(), self.field.to_uppercase());
        write!(f, "--{flag} (PODKIT_{variable}): {}", self.why)
    }
}

impl std::error::Error for ParamError {}

impl Values {
    /// Takes for every parameter the flags given, else its variable, else its default. An empty variable
    /// counts as not set.
    pub fn gather<'a>(
        params: impl Iterator<Item = &'a Param>,
        flags: &dyn Fn(&Param) -> Vec<String>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut given = BTreeMap::new();
        for param in params {
            let from_flags = flags(param);
            let set = |name: &str| variable(name).filter(|text| !text.is_empty());
            let others = || param.also.iter().find_map(|name| set(name));
            let (texts, origin) = if !from_flags.is_empty() {
                (from_flags, Origin::Flag)
            } else if let Some(text) = set(&param.variable()).or_else(others) {
                (vec![text], Origin::Variable)
            } else {
                (
                    param.default.map(str::to_owned).into_iter().collect(),
                    Origin::Default,
                )
            };
            let split = |text: String| -> Vec<String> {
                match param.commas {
                    true => text.split(',').map(|part| part.trim().to_owned()).collect(),
                    false => vec![text],
                }
            };
            let raws = texts
                .into_iter()
                .flat_map(split)
                .map(|text| Raw { text, origin })
                .collect();
            given.insert(param.field, (*param, raws));
        }
        Self { given }
    }

    /// The typed value of a field.
    pub fn get<T: ParamShape>(&self, field: &'static str) -> Result<T, ParamError> {
        let (param, raws) = self
            .given
            .get(field)
            .expect("every declared field was gathered");
        let texts: Vec<&str> = raws.iter().map(|raw| raw.text.as_str()).collect();
        let wrong = |text: &str, why: &str| {
            let shown = match param.secret {
                true => MASK.into(),
                false => masked_value(text),
            };
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(" ({})", masked_about(text, why))
            };
            ParamError::new(
                field,
                format!(
                    "\"{shown}\" is not right{why}; expected {}",
                    param.expectation()
                ),
            )
        };
        if texts.is_empty() && !T::OPTIONAL {
            let what = format!("is required; expected {}", param.expectation());
            return Err(ParamError::new(field, what));
        }
        let value = T::collect(&texts).map_err(|(text, why)| wrong(&text, &why))?;
        if let Some((low, high)) = param.bounds
            && value
                .magnitudes()
                .iter()
                .any(|&found| found < low || found > high)
        {
            return Err(wrong(&texts.join(","), "out of range"));
        }
        Ok(value)
    }

    /// A flag or a variable says it.
    pub fn is_given(&self, field: &str) -> bool {
        let given = self.given.get(field).map(|(_, raws)| raws);
        given.is_some_and(|raws| raws.iter().any(|raw| raw.origin != Origin::Default))
    }

    /// Every parameter with its texts, as `/config` shows them: secrets are masked, and passwords in URLs.
    pub fn shown(&self) -> impl Iterator<Item = (&Param, Vec<Raw>)> {
        self.given.values().map(|(param, raws)| {
            let mask = |raw: &Raw| Raw {
                text: match param.secret {
                    true => MASK.to_owned(),
                    false => masked_value(&raw.text).into_owned(),
                },
                origin: raw.origin,
            };
            (param, raws.iter().map(mask).collect())
        })
    }

    /// A hash of all that is in force, for the metric that shows whether two replicas agree (FNV-1a, 64 bits).
    pub fn hash(&self) -> u64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for (field, (_, raws)) in &self.given {
            add(field.as_bytes());
            raws.iter().for_each(|raw| add(raw.text.as_bytes()));
        }
        hash
    }
}

/// The variables named PODKIT_… that no parameter has, each with the nearest name: worth a warning, not an
/// error, since a Kubernetes Service named podkit injects some.
pub fn unknown_variables<'a>(
    params: impl Iterator<Item = &'a Param>,
    variables: impl Iterator<Item = String>,
) -> Vec<(String, Option<String>)> {
    let known: Vec<String> = params.map(Param::variable).collect();
    let unknown = variables.filter(|name| name.starts_with("PODKIT_") && !known.contains(name));
    unknown
        .map(|name| {
            let near = known
                .iter()
                .map(|other| (strsim::jaro_winkler(&name[7..], &other[7..]), other))
                .filter(|(score, _)| *score > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, other)| other.clone());
            (name, near)
        })
        .collect()
}
