//! A headless Chromium, driven over WebDriver (W3C): what a person would see and click.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::net::free_addr;
use crate::process::Process;
use crate::{http, program, until};

/// A browser with one window. Dropping it ends the browser and its driver.
#[derive(Debug)]
pub struct Browser {
    driver: SocketAddr,
    session: String,
    process: Process,
}

impl Browser {
    /// Opens a window of this size; `dark` as the colour scheme that pages may ask for. Wants chromedriver and Chromium.
    pub fn open(width: u32, height: u32, dark: bool) -> Self {
        let driver = free_addr();
        let found = program("chromedriver").expect("chromedriver is installed");
        let mut command = Command::new(found);
        command.arg(format!("--port={}", driver.port()));
        let process = Process::spawn("chromedriver", &mut command);
        until("chromedriver", || {
            let status = http::get(driver, "/status").ok()?.json();
            (status["value"]["ready"] == true).then_some(())
        });
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--window-size={width},{height}"),
        ];
        if dark {
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let mut browser = Self {
            driver,
            session: String::new(),
            process,
        };
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = browser.post("/session", &wanted);
        let id = made["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("/session/{id}");
        browser
    }

    /// Goes to a page and waits until it has loaded.
    pub fn visit(&self, url: &str) {
        self.post(&format!("{}/url", self.session), &json!({"url": url}));
    }

    /// What a script returns. It runs as the body of a function.
    pub fn script(&self, body: &str) -> Value {
        let wanted = json!({"script": body, "args": []});
        self.post(&format!("{}/execute/sync", self.session), &wanted)
    }

    /// Clicks the first element that a CSS selector names, as a person would: it must be visible.
    pub fn click(&self, selector: &str) {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.post(&format!("{}/element", self.session), &wanted);
        let id = found.as_object().and_then(|map| map.values().next());
        let id = id.and_then(Value::as_str).expect("an element has an id");
        self.post(&format!("{}/element/{id}/click", self.session), &json!({}));
    }

    /// Types into the first element that a CSS selector names.
    pub fn type_into(&self, selector: &str, text: &str) {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.post(&format!("{}/element", self.session), &wanted);
        let id = found.as_object().and_then(|map| map.values().next());
        let id = id.and_then(Value::as_str).expect("an element has an id");
        let path = format!("{}/element/{id}/value", self.session);
        self.post(&path, &json!({"text": text}));
    }

    /// Errors that the page has written to its console so far.
    pub fn console_errors(&self) -> Vec<String> {
        let path = format!("{}/se/log", self.session);
        let entries = self.post(&path, &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    /// Writes a picture of the window (PNG).
    pub fn screenshot(&self, file: &Path) {
        let path = format!("{}/screenshot", self.session);
        let answer = http::get(self.driver, &path).expect("chromedriver answers");
        let text = answer.json()["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        std::fs::write(file, base64(&text)).expect("the file can be written");
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let answer = http::send(
            self.driver,
            "POST",
            path,
            "application/json",
            body.as_bytes(),
        );
        let answer =
            answer.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.process.shown()));
        let mut value = answer.json();
        assert_eq!(answer.status, 200, "{path} {body}: {value}");
        value["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; the driver is ended as a process of ours.
        drop(http::send(
            self.driver,
            "DELETE",
            &self.session,
            "application/json",
            b"",
        ));
    }
}

/// RFC 4648 section 4, as WebDriver sends pictures.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for sextet in text.bytes().filter_map(value) {
        bits = bits << 6 | u32::from(sextet);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("masked to a byte"));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Need, able};

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, bytes) in [("Zg==", "f"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")] {
            assert_eq!(base64(text), bytes.as_bytes());
        }
    }

    #[test]
    fn a_page_is_loaded_clicked_and_seen() {
        if !able(&[Need::Program("chromedriver"), Need::Program("chromium")]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let page = "<button onclick=\"this.textContent = 'clicked'\">click</button><input>";
        std::fs::write(dir.path().join("page.html"), page).unwrap();
        let browser = Browser::open(400, 300, true);
        browser.visit(&format!("file://{}/page.html", dir.path().display()));
        browser.click("button");
        browser.type_into("input", "typed");
        assert_eq!(
            browser.script("return document.querySelector('button').textContent"),
            "clicked"
        );
        assert_eq!(
            browser.script("return document.querySelector('input').value"),
            "typed"
        );
        assert_eq!(
            browser.script("return matchMedia('(prefers-color-scheme: dark)').matches"),
            true
        );
        let picture = dir.path().join("page.png");
        browser.screenshot(&picture);
        assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
        assert!(browser.console_errors().is_empty());
    }
}
