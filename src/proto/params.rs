//! Finding one `name=value` among arguments, cookies and the parts of a header field.

/// The value of `name` (any letter case) among URI arguments: what follows `name=` up to `&`.
pub fn arg<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if name.is_empty() {
        return None;
    }
    args.split(|&b| b == b'&').find_map(|part| match part.get(name.len()) {
        Some(b'=') if part[..name.len()].eq_ignore_ascii_case(name) => {
            Some(&part[name.len() + 1..])
        }
        _ => None,
    })
}

/// The value of `name` (any letter case) in one Cookie field.
pub fn cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    in_list(field, name, b';')
}

/// The value of `name` (any letter case) in a field that lists `name=value` between commas.
pub fn parameter<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    in_list(field, name, b',')
}

/// Whether a field lists `word` (any letter case) between commas.
pub fn has_word(field: &[u8], word: &[u8]) -> bool {
    parts(field, b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

/// The value of the cookie that a Set-Cookie field sets, if it is called `name`.
pub fn set_cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pair = field.split(|&b| b == b';').next()?;
    value_of(pair, name)
}

fn in_list<'a>(field: &'a [u8], name: &[u8], separator: u8) -> Option<&'a [u8]> {
    parts(field, separator).find_map(|part| value_of(part, name))
}

fn parts(field: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    field.split(move |&b| b == separator).map(skip_spaces)
}

/// The value in `name = value`; spaces behind the value belong to it.
fn value_of<'a>(part: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = part.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    Some(skip_spaces(skip_spaces(rest).strip_prefix(b"=")?))
}

fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(found: Option<&[u8]>) -> Option<&str> {
        found.map(|v| std::str::from_utf8(v).unwrap())
    }

    #[test]
    fn args() {
        for (args, name, want) in [
            ("a=1&b=2", "a", Some("1")),
            ("a=1&b=2", "B", Some("2")),
            ("aa=1&a=2&a=3", "a", Some("2")),
            ("a", "a", None),
            ("a=", "a", Some("")),
            ("b=a=1", "a", None),
            ("", "a", None),
            ("=1", "", None),
        ] {
            assert_eq!(s(arg(args.as_bytes(), name.as_bytes())), want, "{args} {name}");
        }
    }

    #[test]
    fn cookies() {
        for (field, want) in [
            ("a=1; b=2", Some("1")),
            ("b=2;A = 1", Some("1")),
            ("b=2; a=1 ; c=3", Some("1 ")),
            ("ab=1; a=2", Some("2")),
            ("a; b=1", None),
            ("b=a=1", None),
            ("", None),
        ] {
            assert_eq!(s(cookie(field.as_bytes(), b"a")), want, "{field}");
        }
        assert_eq!(s(set_cookie(b"a=1; Path=/", b"a")), Some("1"));
        assert_eq!(s(set_cookie(b"b=1; a=2", b"a")), None);
        assert_eq!(s(parameter(b"max-age=5, x", b"max-age")), Some("5"));
        assert!(has_word(b"close, Upgrade", b"upgrade") && !has_word(b"upgraded", b"upgrade"));
    }
}
