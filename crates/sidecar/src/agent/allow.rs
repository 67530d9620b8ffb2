//! Which commands may run: rules that are matched word by word.

use podkit_foundation::params::ParamType;

use crate::publish::words;

/// A rule of `--allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    words: Vec<Word>,
    /// It ends in `*`: more words may follow.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Is(String),
    Any,
}

impl ParamType for Rule {
    const TYPE_NAME: &'static str = "command";
    const EXPECTED: &'static str = "a command line such as 'nginx -t *', where * stands for a word";

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = words(text)?
            .into_iter()
            .map(|word| match word.as_str() {
                "*" => Ok(Word::Any),
                part if part.contains('*') => Err(format!("\"{part}\": a * is a whole word")),
                _ => Ok(Word::Is(word)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if words.first() == Some(&Word::Any) {
            return Err("the program can't be a *: that would allow everything".to_owned());
        }
        let open = words.last() == Some(&Word::Any);
        if open {
            words.pop();
        }
        Ok(Self { words, open })
    }
}

impl Rule {
    /// Whether these words may run.
    pub(super) fn allows(&self, asked: &[String]) -> bool {
        let fits = |(rule, asked): (&Word, &String)| match rule {
            Word::Is(word) => word == asked,
            Word::Any => true,
        };
        let length = match self.open {
            true => asked.len() >= self.words.len(),
            false => asked.len() == self.words.len(),
        };
        length && self.words.iter().zip(asked).all(fits)
    }
}
