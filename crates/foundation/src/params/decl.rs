//! The declaration of a parameter, and the macro that makes a struct and its table from one text.

use super::types::ParamShape;
use super::values::{ParamError, Values};

/// One parameter, as declared. Everything that is shown or parsed of it derives from this.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// The field's name, `snake_case`; the flag is `--kebab-case`, the variable `PODKIT_UPPER_CASE`.
    pub field: &'static str,
    /// The doc comment: its first line is the help, all of it is the reference.
    pub doc: &'static str,
    /// The name of its type, as the reference shows it: `address`, `duration`, …
    pub type_name: &'static str,
    /// What a value looks like: `host:port, :port, [::1]:port or unix:/path`.
    pub expected: &'static str,
    /// The value when none is given. None: required, or optional when `optional` says so.
    pub default: Option<&'static str>,
    /// May be left out without a default.
    pub optional: bool,
    /// May be given more than once.
    pub many: bool,
    /// A flag that needs no value on the command line.
    pub switch: bool,
    /// Smallest and largest value, in the type's unit (whole numbers; milliseconds; bytes).
    pub bounds: Option<(u64, u64)>,
    /// The unit, where the type alone does not say it.
    pub unit: &'static str,
    /// The words it may be, where it is a choice.
    pub choices: &'static [&'static str],
    /// Is read again on SIGHUP or when its file changes; otherwise a change needs a restart.
    pub live: bool,
    /// Never shown by `explain`, logs, pages or `/config`.
    pub secret: bool,
    /// Several values in one text are separated by commas.
    pub commas: bool,
    /// The flag's one-letter form.
    pub short: Option<char>,
    /// Variables of other tools that mean the same, read in order when its own isn't set.
    pub also: &'static [&'static str],
}

impl Param {
    /// A declaration with what the type alone tells.
    pub const fn new<T: ParamShape>(field: &'static str, doc: &'static str) -> Self {
        Self {
            field,
            doc,
            type_name: T::TYPE_NAME,
            expected: T::EXPECTED,
            default: None,
            optional: T::OPTIONAL,
            many: T::MANY,
            switch: T::SWITCH,
            bounds: None,
            unit: "",
            choices: T::CHOICES,
            live: false,
            secret: false,
            commas: T::MANY,
            short: None,
            also: &[],
        }
    }

    /// The field without what makes a keyword of the language a name: `for`.
    fn name(&self) -> &'static str {
        self.field.trim_start_matches("r#")
    }

    /// The flag's name without its dashes: `client-ca`.
    pub fn flag(&self) -> String {
        self.name().replace('_', "-")
    }

    /// The variable: `PODKIT_CLIENT_CA`.
    pub fn variable(&self) -> String {
        format!("PODKIT_{}", self.name().to_uppercase())
    }

    /// The first line of the doc comment, for `--help`.
    pub fn help(&self) -> &'static str {
        self.doc.trim().lines().next().unwrap_or_default().trim()
    }

    /// The doc comment without the indent of its lines.
    pub fn full_doc(&self) -> String {
        let lines: Vec<&str> = self.doc.lines().map(str::trim).collect();
        lines.join("\n").trim().to_owned()
    }

    /// What a right value is, bounds and unit included: the tail of every error.
    pub fn expectation(&self) -> String {
        let mut text = self.expected.to_owned();
        if !self.choices.is_empty() {
            text = format!("one of {}", self.choices.join(", "));
        }
        if !self.unit.is_empty() {
            text = format!("{text} ({})", self.unit);
        }
        if let Some((low, high)) = self.bounds {
            let show = |bound| match self.type_name {
                "duration" => super::types::show_duration(std::time::Duration::from_millis(bound)),
                "size" => super::types::Size(bound).to_string(),
                _ => bound.to_string(),
            };
            text = format!("{text} from {} to {}", show(low), show(high));
        }
        text
    }
}

/// A struct whose fields are parameters; made by [`params!`](crate::params!).
pub trait ParamSet: Sized {
    /// The declarations, in the order of the fields.
    const PARAMS: &'static [Param];

    /// The typed fields, or the first value that is wrong.
    fn from_values(values: &Values) -> Result<Self, ParamError>;
}

/// Declares a struct of parameters: doc comment, name, type, and what differs from the type's own
/// declaration (`default`, `bounds`, `unit`, `live`, `secret`, …: the fields of [`Param`]).
#[macro_export]
macro_rules! params {
    (
        $(#[doc = $struct_doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident : $type:ty { $($key:ident : $value:expr),* $(,)? }
            ),* $(,)?
        }
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl $crate::params::ParamSet for $name {
            const PARAMS: &'static [$crate::params::Param] = &[
                $(
                    $crate::params::Param {
                        $($key: $value,)*
                        ..$crate::params::Param::new::<$type>(
                            stringify!($field),
                            concat!($($doc, "\n",)*),
                        )
                    },
                )*
            ];

            fn from_values(
                values: &$crate::params::Values,
            ) -> Result<Self, $crate::params::ParamError> {
                Ok(Self { $( $field: values.get(stringify!($field))?, )* })
            }
        }
    };
}

/// Declares a choice: an enum whose variants are the words that people type.
#[macro_export]
macro_rules! choices {
    (
        $(#[doc = $enum_doc:literal])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $doc:literal])* $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[doc = $enum_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $( $(#[doc = $doc])* $variant, )* }

        impl $name {
            /// The word that people type.
            #[allow(dead_code, reason = "not every choice is shown")]
            $vis fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::params::ParamType for $name {
            const TYPE_NAME: &'static str = "choice";
            const EXPECTED: &'static str = "one of its words";
            const CHOICES: &'static [&'static str] = &[$($word),*];

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err(String::new()),
                }
            }
        }
    };
}
