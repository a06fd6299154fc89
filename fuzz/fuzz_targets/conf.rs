//! The lexer of nginx.conf: any bytes; what it read is written again and must be read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::conf::{Lexer, Token};

fuzz_target!(|input: &[u8]| {
    let lines = 1 + input.iter().filter(|b| **b == b'\n').count();
    let mut lexer = Lexer::new(input.to_vec());
    let (mut tokens, mut line) = (Vec::new(), 0);
    while let Ok(token) = lexer.next_token() {
        assert!(line <= lexer.line() && lexer.line() <= lines);
        line = lexer.line();
        if token == Token::End {
            break;
        }
        tokens.push(token);
    }
    let mut again = Lexer::new(tokens.iter().map(written).collect::<String>().into_bytes());
    for token in &tokens {
        assert_eq!(again.next_token().as_ref(), Ok(token));
    }
});

/// A token as an operator could have written it.
fn written(token: &Token) -> String {
    let words = |words: &[String]| -> String {
        let quoted = |w: &String| w.replace('\\', "\\\\").replace('"', "\\\"");
        words.iter().map(|w| format!("\"{}\" ", quoted(w))).collect()
    };
    match token {
        Token::Statement(w) => words(w) + ";\n",
        Token::Open(w) => words(w) + "{\n",
        Token::Close => "}\n".into(),
        Token::End => String::new(),
    }
}
