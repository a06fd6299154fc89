//! Cuts one file's text into statements: words, then `;`, `{` or `}`.
//!
//! The rules are nginx's: a `#` comments only where a word could begin, quotes only there too,
//! `\` keeps itself before anything but quotes, `\`, `t`, `r` and `n`, and a `{` right after a
//! `$` belongs to the word (`${name}`).

/// What the lexer found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Token {
    /// `words… ;`
    Statement(Vec<String>),
    /// `words… {`
    Open(Vec<String>),
    /// `}`
    Close,
    /// The text is over.
    End,
}

/// A cursor over one file's bytes.
pub struct Lexer {
    text: Vec<u8>,
    at: usize,
    line: usize,
}

type Fault = String;

impl Lexer {
    /// Starts at the first byte, in line 1.
    pub fn new(text: Vec<u8>) -> Lexer {
        Lexer { text, at: 0, line: 1 }
    }

    /// The line the cursor is in: that of the last token's end.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The whole text, for `-T`.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The next statement, block opening, block end or the end.
    pub fn next_token(&mut self) -> Result<Token, Fault> {
        let mut words = Vec::new();
        loop {
            self.skip_blank();
            let Some(byte) = self.peek() else {
                return if words.is_empty() { Ok(Token::End) } else { Err(unfinished()) };
            };
            match byte {
                b';' | b'{' if words.is_empty() => {
                    return Err(format!("unexpected \"{}\"", byte as char));
                }
                b';' => {
                    self.bump();
                    return Ok(Token::Statement(words));
                }
                b'{' => {
                    self.bump();
                    return Ok(Token::Open(words));
                }
                b'}' if !words.is_empty() => return Err("unexpected \"}\"".into()),
                b'}' => {
                    self.bump();
                    return Ok(Token::Close);
                }
                b'"' | b'\'' => words.push(self.quoted(byte)?),
                _ => words.push(self.bare()?),
            }
        }
    }

    /// Takes the raw text of a block whose content is not of this language, up to the `}` that
    /// `find_end` names (an offset into the rest); the cursor goes behind that `}`.
    pub fn raw_block(
        &mut self,
        find_end: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<String, Fault> {
        let rest = &self.text[self.at..];
        let Some(end) = find_end(rest) else {
            return Err("unexpected end of file, expecting \"}\"".into());
        };
        let body = text(rest[..end].to_vec())?;
        self.line += memchr::memchr_iter(b'\n', &rest[..end]).count();
        self.at += end + 1;
        Ok(body)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn bump(&mut self) {
        if self.text[self.at] == b'\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.bump(),
                b'#' => {
                    while self.peek().is_some_and(|b| b != b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<String, Fault> {
        self.bump();
        let mut word = Vec::new();
        loop {
            let Some(byte) = self.peek() else { return Err(unfinished()) };
            self.bump();
            match byte {
                b'\\' => self.escape(&mut word),
                b if b == quote => break,
                b => word.push(b),
            }
        }
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => text(word),
            Some(other) => Err(format!("unexpected \"{}\"", other as char)),
        }
    }

    fn bare(&mut self) -> Result<String, Fault> {
        let (mut word, mut after_dollar) = (Vec::new(), false);
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if after_dollar => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                _ => {}
            }
            after_dollar = byte == b'$';
            self.bump();
            if byte == b'\\' { self.escape(&mut word) } else { word.push(byte) }
        }
        match self.peek() {
            None => Err(unfinished()),
            Some(_) => text(word),
        }
    }

    /// The cursor stands behind a `\`.
    fn escape(&mut self, word: &mut Vec<u8>) {
        let Some(byte) = self.peek() else { return word.push(b'\\') };
        self.bump();
        match byte {
            b'"' | b'\'' | b'\\' => word.push(byte),
            b't' => word.push(b'\t'),
            b'r' => word.push(b'\r'),
            b'n' => word.push(b'\n'),
            _ => word.extend([b'\\', byte]),
        }
    }
}

fn text(word: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(word)
        .map_err(|e| format!("invalid UTF-8 in \"{}\"", String::from_utf8_lossy(e.as_bytes())))
}

fn unfinished() -> Fault {
    "unexpected end of file, expecting \";\" or \"}\"".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tokens as text: words joined by `|`, then `;` or `{`; `}`; a fault after `!`.
    fn lex(source: &str) -> String {
        let (mut lexer, mut out) = (Lexer::new(source.into()), String::new());
        loop {
            match lexer.next_token() {
                Ok(Token::Statement(w)) => out += &(w.join("|") + ";"),
                Ok(Token::Open(w)) => out += &(w.join("|") + "{"),
                Ok(Token::Close) => out += "}",
                Ok(Token::End) => return out,
                Err(e) => return out + "!" + &e,
            }
        }
    }

    #[test]
    fn statements() {
        for (source, want) in [
            ("a b  c;\n# no\nd{e f;}", "a|b|c;d{e|f;}"),
            ("a \"b c\" 'd;\"e' f#g;", "a|b c|d;\"e|f#g;"),
            (r#"a \" "\t\x\\" 'it\'s';"#, "a|\"|\t\\x\\|it's;"),
            ("a ${b}c $d{e;}", "a|${b}c|$d{e;}"),
            ("if ($a = \"b\") { }", "if|($a|=|b|){}"),
            ("a\n\"multi\nline\"\n;", "a|multi\nline;"),
            ("a \"\";", "a|;"),
            ("", ""),
        ] {
            assert_eq!(lex(source), want, "{source}");
        }
    }

    #[test]
    fn faults() {
        for (source, want) in [
            (";", "!unexpected \";\""),
            ("{", "!unexpected \"{\""),
            ("a }", "!unexpected \"}\""),
            ("a", "!unexpected end of file, expecting \";\" or \"}\""),
            ("a \"b", "!unexpected end of file, expecting \";\" or \"}\""),
            ("a \"b\"c;", "!unexpected \"c\""),
        ] {
            assert_eq!(lex(source), want, "{source}");
        }
    }

    #[test]
    fn lines_are_those_of_the_terminator() {
        let mut lexer = Lexer::new("a\nb\n;\nc;".into());
        lexer.next_token().unwrap();
        assert_eq!(lexer.line(), 3);
        lexer.next_token().unwrap();
        assert_eq!(lexer.line(), 4);
    }

    proptest! {
        #[test]
        fn any_bytes_end(source in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut lexer = Lexer::new(source);
            while let Ok(token) = lexer.next_token() {
                if token == Token::End { break }
            }
        }
    }
}
