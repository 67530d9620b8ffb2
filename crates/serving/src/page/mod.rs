//! The frame of live pages: a page that asks for its own JSON each second. Its script is apart, so that the page's policy can allow
//! no other.

use podkit_dataplane::module::Answer;

/// A live page.
pub(crate) struct Page {
    /// What comes behind the common style.
    pub(crate) style: &'static str,
    /// Where the same is as JSON.
    pub(crate) json: &'static str,
    /// Where to go without JavaScript: a link.
    pub(crate) plain: &'static str,
    /// Between the heads and the script.
    pub(crate) main: &'static str,
    /// Where its script is.
    pub(crate) script: &'static str,
}

impl Page {
    /// The page of `module`.
    pub(crate) fn html(&self, module: &str) -> Answer {
        let style = [podkit_dataplane::admin::STYLE, self.style].concat();
        let html = [
            ("{{name}}", module),
            ("{{style}}", &style),
            ("{{json}}", self.json),
            ("{{plain}}", self.plain),
            ("{{main}}", self.main),
            ("{{script}}", self.script),
        ]
        .iter()
        .fold(
            include_str!("frame.html").to_owned(),
            |html, (mark, text)| html.replace(mark, text),
        );
        answer(200, "text/html; charset=utf-8", html.into_bytes())
    }
}

/// A page's script behind what all share.
pub(crate) fn script(own: &str) -> Answer {
    let script = [include_str!("page.js"), own].concat();
    answer(200, "text/javascript; charset=utf-8", script.into_bytes())
}

/// An answer in JSON.
pub(crate) fn json(value: &serde_json::Value) -> Answer {
    answer(200, "application/json", format!("{value}\n").into_bytes())
}

/// A line for who asks by hand.
pub(crate) fn text(status: u16, line: &str) -> Answer {
    let line = format!("{line}\n");
    answer(status, "text/plain; charset=utf-8", line.into_bytes())
}

fn answer(status: u16, content_type: &'static str, body: Vec<u8>) -> Answer {
    Answer {
        status,
        content_type,
        body,
    }
}
