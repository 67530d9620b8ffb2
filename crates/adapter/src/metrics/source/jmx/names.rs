//! Names of MBeans: `java.lang:type=MemoryPool,name="G1 Eden Space"`, and patterns of them.

use crate::metrics::source::glob::matches;

/// A name; its properties are in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) domain: String,
    pub(super) properties: Vec<(String, String)>,
    /// A pattern's `*` among the properties: there may be others.
    open: bool,
}

impl Name {
    /// Reads one; quotes around a value stay.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (domain, mut rest) = text.split_once(':')?;
        let mut name = Self {
            domain: domain.to_owned(),
            properties: Vec::new(),
            open: false,
        };
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('*')
                && (after.is_empty() || after.starts_with(','))
            {
                name.open = true;
                rest = after.strip_prefix(',').unwrap_or(after);
                continue;
            }
            let (key, after) = rest.split_once('=')?;
            let end = match after.strip_prefix('"') {
                Some(quoted) => {
                    let mut escaped = false;
                    let end = quoted.bytes().position(|byte| {
                        let ends = byte == b'"' && !escaped;
                        escaped = byte == b'\\' && !escaped;
                        ends
                    });
                    end? + 2
                }
                None => after.find(',').unwrap_or(after.len()),
            };
            let (value, next) = after.split_at(end);
            if key.is_empty() || !next.is_empty() && !next.starts_with(',') {
                return None;
            }
            name.properties.push((key.to_owned(), value.to_owned()));
            rest = next.strip_prefix(',').unwrap_or(next);
        }
        (name.open || !name.properties.is_empty()).then_some(name)
    }

    pub(super) fn property(&self, key: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Its properties by name: the same for whatever order they are in.
    pub(super) fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        sorted.properties.sort();
        sorted
    }

    /// As a pattern it stands for that name.
    pub(super) fn covers(&self, name: &Self) -> bool {
        let fits = |(key, value): &(String, String)| {
            name.property(key)
                .is_some_and(|found| matches(value.as_bytes(), found.as_bytes()))
        };
        matches(self.domain.as_bytes(), name.domain.as_bytes())
            && self.properties.iter().all(fits)
            && (self.open || self.properties.len() == name.properties.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::proptest;

    #[test]
    fn names_are_read_and_covered() {
        let name = Name::parse("a.b:type=T,name=\"x,\\\"=y\",z=1").unwrap();
        assert_eq!(name.property("name"), Some("\"x,\\\"=y\""));
        assert_eq!(name.property("z"), Some("1"));
        let check = |pattern: &str, right: bool| {
            assert_eq!(
                Name::parse(pattern).unwrap().covers(&name),
                right,
                "{pattern}"
            );
        };
        check("*:*", true);
        check("a.*:*", true);
        check("a.b:type=T,*", true);
        check("a.b:*,type=T", true);
        check("a.b:type=T", false);
        check("a.b:z=1,type=*,name=*", true);
        check("a.b:type=U,*", false);
        check("b:*", false);
        for wrong in ["a", "a:", "a:b", "a:=b", "a:b=\"c", "a:b=\"c\"d"] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(text in "[a:=,*\"\\\\é]{0,20}") {
            if let Some(name) = Name::parse(&text) {
                name.covers(&name);
            }
        }
    }
}
