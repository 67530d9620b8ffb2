//! The page that every module has at `/`: one style, light and dark, no request to anywhere else.

use std::fmt::Write as _;

use podkit_foundation::surface::Endpoint;

use crate::module::Section;

/// The style that all pages of podkit share.
pub const STYLE: &str = include_str!("style.css");
const LIVE: &str = include_str!("live.js");

/// Writing to a String can't fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => { write!($out, $($arg)*).expect("writing to a String can't fail") };
}

/// What stands above the sections of a module's page.
#[derive(Debug, Clone)]
pub(super) struct Heading<'a> {
    /// The module's name.
    pub module: &'a str,
    /// Its line of `--help`.
    pub summary: &'a str,
    /// The phase's word, or why it isn't ready.
    pub state: &'a str,
    /// Whether `/readyz` is 200.
    pub ready: bool,
    /// The module's own endpoints; those that can be asked as they are become links.
    pub links: &'a [Endpoint],
}

/// The whole page. Its sections are fetched again every two seconds from `/?part=sections`.
pub(super) fn page(heading: &Heading<'_>, sections: &[Section]) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let (module, version) = (escape(heading.module), podkit_foundation::VERSION);
    put!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>podkit {module}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body><header>\
         <h1>podkit <b>{module}</b></h1><p>{}</p><nav><a href=\"/config\">config</a> \
         <a href=\"/metrics\">metrics</a> <a href=\"/readyz?verbose\">readyz</a> ",
        escape(heading.summary),
    );
    let whole = |link: &&Endpoint| !link.path.contains(['{', ' ']) && link.path != "/";
    for link in heading.links.iter().filter(whole) {
        let path = escape(link.path);
        put!(out, "<a href=\"{path}\">{}</a> ", path.trim_matches('/'));
    }
    put!(
        out,
        "<span class=\"muted\">{version}</span></nav></header><main id=\"live\">"
    );
    out.push_str(&self::sections(heading, sections));
    put!(
        out,
        "</main><p id=\"gone\" class=\"alert\" hidden>podkit doesn't answer any more.</p>\
               <script>{LIVE}</script></body></html>\n"
    );
    out
}

/// The part of the page that changes.
pub(super) fn sections(heading: &Heading<'_>, sections: &[Section]) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let class = if heading.ready { "good" } else { "bad" };
    put!(
        out,
        "<p class=\"state {class}\" id=\"state\">{}</p>",
        escape(heading.state)
    );
    for alert in sections.iter().filter_map(|section| section.alert.as_ref()) {
        put!(
            out,
            "<p class=\"alert\" role=\"alert\">{}</p>",
            escape(alert)
        );
    }
    for section in sections {
        put!(
            out,
            "<section><h2>{}</h2><div class=\"scroll\"><table>",
            escape(&section.title)
        );
        if !section.columns.is_empty() {
            out.push_str("<thead><tr>");
            section
                .columns
                .iter()
                .for_each(|name| put!(out, "<th>{}</th>", escape(name)));
            out.push_str("</tr></thead>");
        }
        out.push_str("<tbody>");
        for row in &section.rows {
            out.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                match at == 0 && section.columns.is_empty() {
                    true => put!(out, "<th scope=\"row\">{}</th>", escape(cell)),
                    false => put!(out, "<td>{}</td>", escape(cell)),
                }
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div></section>");
    }
    out
}

/// Text made safe between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
