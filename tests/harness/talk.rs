//! Requests and what is expected of the answers, as text: one case, one line.
//!
//! ```text
//! # a comment
//! GET /a                                  -> 200 the body
//! GET /b | Host: b.example | X-A: 1       -> 301 * | Location: http://*/c | !X-Powered-By
//! POST /c HTTP/1.0 << a=1                 -> 413
//! GET /d                                  -> closed
//! ```
//! In the body and in header values `*` stands for anything; a body that is not given is not
//! looked at; `!Name` means that there is no such header. `\n`, `\r` and `\t` may be written.
//! Each request has a connection of its own.

use super::{Client, Response};

/// One request with the answer it deserves.
pub struct Case {
    pub line: String,
    request: String,
    expected: String,
}

/// The cases of a talk.
pub fn cases(talk: &str) -> Vec<Case> {
    let lines = talk.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let Some((request, expected)) = line.split_once(" -> ") else {
                panic!("no ` -> ` in the case {line:?}");
            };
            let (request, expected) = (request.trim().into(), expected.trim().into());
            Case { line: line.into(), request, expected }
        })
        .collect()
}

impl Case {
    /// Plays the case on `client`; the difference, if there is one.
    pub fn play(&self, client: &mut Client) -> Result<(), String> {
        let (head, method) = request_bytes(&self.request, "close");
        client.send(head);
        if self.expected == "closed" {
            let rest = client.read_to_end();
            return match rest.is_empty() {
                true => Ok(()),
                false => Err(format!("not closed but {:?}", String::from_utf8_lossy(&rest))),
            };
        }
        meets(&client.try_response(&method)?, &self.expected)
    }
}

/// The bytes of `METHOD TARGET [VERSION] {| Header: value} [<< body]`, and the method.
///
/// Host and Connection are added where they are not given.
pub fn request_bytes(text: &str, connection: &str) -> (String, String) {
    let (text, body) = match text.split_once(" << ") {
        Some((text, body)) => (text.trim(), Some(unescaped(body))),
        None => (text, None),
    };
    let mut parts = text.split(" | ").map(str::trim);
    let line = parts.next().unwrap_or_default();
    let version = if line.split(' ').count() < 3 { " HTTP/1.1" } else { "" };
    let mut head = format!("{line}{version}\r\n");
    let headers: Vec<&str> = parts.collect();
    let given = |name: &str| headers.iter().any(|h| h.to_lowercase().starts_with(name));
    for header in &headers {
        head += &format!("{}\r\n", unescaped(header));
    }
    for (name, value) in [("host:", "localhost"), ("connection:", connection)] {
        if !given(name) {
            head += &format!("{name} {value}\r\n");
        }
    }
    let framed = given("transfer-encoding:") || given("content-length:");
    if let Some(body) = body.as_ref().filter(|_| !framed) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let method = line.split(' ').next().unwrap_or_default().to_string();
    (format!("{head}\r\n{}", body.unwrap_or_default()), method)
}

/// Whether a response is `STATUS [body] {| Header: value | !Header}`.
pub fn meets(response: &Response, expected: &str) -> Result<(), String> {
    let mut parts = expected.split(" | ").map(str::trim);
    let line = parts.next().unwrap_or_default();
    let (status, body) = line.split_once(' ').unwrap_or((line, ""));
    let got = |what: &str| Err(format!("{what}, in\n{}", response.shown()));
    if response.status.to_string() != status {
        return got(&format!("status {}", response.status));
    }
    if !body.is_empty() && !matches(&unescaped(body), response.text().trim_end_matches('\n')) {
        return got(&format!("body {:?}", response.text()));
    }
    for part in parts {
        if let Some(name) = part.strip_prefix('!') {
            if let Some(value) = response.header(name) {
                return got(&format!("{name}: {value}"));
            }
            continue;
        }
        let (name, value) = part.split_once(':').unwrap_or((part, "*"));
        let value = unescaped(value.trim());
        if !response.all(name).iter().any(|v| matches(&value, v)) {
            return got(&format!("{name}: {:?}", response.all(name)));
        }
    }
    Ok(())
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = text.find(piece) else {
            return false;
        };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

fn unescaped(text: &str) -> String {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t")
}

#[test]
fn a_star_stands_for_anything() {
    for (pattern, text, expected) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("*", "", true),
        ("a*c", "abc", true),
        ("a*c", "abd", false),
        ("*b*", "abc", true),
        ("ab*ba", "aba", false),
        ("a*b*c*", "aXbYcZ", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
