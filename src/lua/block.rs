//! Where a block of Lua in the configuration ends.

/// The offset of the `}` that closes a block whose text begins with `text`; `None` if there is
/// none. Braces in strings, long brackets and comments do not count.
pub fn end(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        match *text.get(at)? {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            quote @ (b'"' | b'\'') => at = string_end(text, at + 1, quote)?,
            b'-' if text.get(at + 1) == Some(&b'-') => at = comment_end(text, at + 2)?,
            b'[' => {
                if let Some(level) = long_level(text, at) {
                    at = long_end(text, at + level + 2, level)?;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// The closing quote of a string that begins at `at`.
fn string_end(text: &[u8], mut at: usize, quote: u8) -> Option<usize> {
    loop {
        match *text.get(at)? {
            b'\\' => at += 1,
            byte if byte == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

/// The last byte of a comment whose text begins at `at`.
fn comment_end(text: &[u8], at: usize) -> Option<usize> {
    match long_level(text, at) {
        Some(level) => long_end(text, at + level + 2, level),
        None => memchr::memchr(b'\n', &text[at..]).map(|line| at + line),
    }
}

/// How many `=` stand in the long bracket that opens at `at`, if one does.
fn long_level(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|byte| **byte == b'=').count();
    (rest.get(level) == Some(&b'[')).then_some(level)
}

/// The last byte of the long bracket of this level that closes at or behind `at`.
fn long_end(text: &[u8], at: usize, level: usize) -> Option<usize> {
    let close = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
    let found = memchr::memmem::find(text.get(at..)?, &close)?;
    Some(at + found + close.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Option<&str> {
        end(text.as_bytes()).map(|at| &text[..at])
    }

    #[test]
    fn braces_of_lua_do_not_end_the_block() {
        for inside in [
            " x = { 1, { 2 } } ",
            " x = '}' .. \"}\\\"}\" ",
            " -- }\n x = 1 ",
            " --[[ } ]] x = 1 ",
            " --[==[ ]] } ]==] x = 1 ",
            " x = [[ } ]] .. [=[ ]] } ]=] ",
            " x[y[1]] = 2 ",
            " x = a[b] -- it's\n ",
            "",
        ] {
            assert_eq!(body(&format!("{inside}}} rest }}")), Some(inside));
        }
    }

    #[test]
    fn what_is_not_closed_has_no_end() {
        for open in [" { } ", " '} ", " [[ } ", " -- } ", " --[[ } ", " \"\\"] {
            assert_eq!(body(open), None, "{open}");
        }
    }
}
