//! Logs: one line per event on standard error, JSON (`ts level module msg` and fields) or text for a terminal.
//!
//! A `tracing` subscriber of our own: spans are not used, so tracing-subscriber's registry would be weight
//! without a use. Lines are written whole, with one system call, so that processes can share a pipe.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::secret::masked_urls;

crate::choices! {
    /// `--log-level`.
    pub enum LogLevel {
        /// Someone must act.
        Error = "error",
        /// Something was wrong and podkit recovered.
        Warn = "warn",
        /// What a person who runs it wants to know.
        Info = "info",
        /// What a person who looks for a fault wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

crate::choices! {
    /// `--log-format`.
    pub enum LogFormat {
        /// JSON lines.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

/// Takes all log events of this process from here on. A second call changes nothing.
pub fn init(module: &'static str, level: LogLevel, format: LogFormat) {
    let max = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    // Fails only when one is set already, as in a test binary.
    drop(tracing::subscriber::set_global_default(Lines {
        module,
        max,
        format,
    }));
}

struct Lines {
    module: &'static str,
    max: Level,
    format: LogFormat,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak only when something is wrong.
        let ours = metadata.target().starts_with("podkit");
        let max = if ours {
            self.max
        } else {
            self.max.min(Level::WARN)
        };
        metadata.is_event() && *metadata.level() <= max
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.max.into())
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        let line = render(SystemTime::now(), *level, self.module, &fields, self.format);
        // Nobody is left to tell when standard error is gone.
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, serde_json::Value)>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: serde_json::Value) {
        match (field.name(), value) {
            ("message", serde_json::Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

/// Passwords in URLs are not logged.
impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, masked_urls(&format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, masked_urls(value).into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }
}

fn render(
    at: SystemTime,
    level: Level,
    module: &str,
    fields: &Fields,
    format: LogFormat,
) -> String {
    let ts = humantime::format_rfc3339_millis(at);
    match format {
        LogFormat::Json => {
            // Written by hand to keep the order: people read these lines too.
            let mut line = format!(
                "{{\"ts\":\"{ts}\",\"level\":\"{}\"",
                level.as_str().to_lowercase()
            );
            let fixed = [
                ("module", module.into()),
                ("msg", fields.message.as_str().into()),
            ];
            let others = fields
                .others
                .iter()
                .map(|(name, value)| (*name, value.clone()));
            for (name, value) in fixed.into_iter().chain(others) {
                let value: serde_json::Value = value;
                write!(line, ",\"{name}\":{value}").expect("writing to a String can't fail");
            }
            line + "}\n"
        }
        LogFormat::Text => {
            let mut line = format!("{ts} {level:5} {module}: {}", clean(&fields.message));
            for (name, value) in &fields.others {
                let text = match value {
                    serde_json::Value::String(text) if !text.contains([' ', '"']) => clean(text),
                    other => other.to_string(),
                };
                write!(line, " {name}={text}").expect("writing to a String can't fail");
            }
            line + "\n"
        }
    }
}

/// A peer's bytes must not be able to move the cursor or start a line.
fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let others = vec![
            ("peer", "10.0.0.1".into()),
            ("why", "a \"b\"\n".into()),
            ("n", 3.into()),
        ];
        Fields {
            message: "refused\u{1b}[2J".to_owned(),
            others,
        }
    }

    #[test]
    fn json_has_the_contract_fields_first_and_escapes() {
        let line = render(
            SystemTime::UNIX_EPOCH,
            Level::WARN,
            "tls",
            &fields(),
            LogFormat::Json,
        );
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["ts"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["module"], "tls");
        assert_eq!(
            (&value["why"], &value["n"]),
            (&"a \"b\"\n".into(), &3.into())
        );
        assert!(line.starts_with(
            "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\"module\":\"tls\",\"msg\":"
        ));
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn text_lets_no_control_character_through() {
        let line = render(
            SystemTime::UNIX_EPOCH,
            Level::WARN,
            "tls",
            &fields(),
            LogFormat::Text,
        );
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z WARN  tls: refused\\u{1b}[2J peer=10.0.0.1 why=\"a \\\"b\\\"\\n\" n=3\n"
        );
    }
}
