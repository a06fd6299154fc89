//! `receiveuntil`: bytes up to a pattern, in one piece or in several.
//!
//! Bytes that may be the beginning of the pattern wait in the inbox until it is known whether they
//! are: pieces end where OpenResty's end.

use std::cell::Cell;

/// A pattern that is looked for.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
    /// What was read ends with the pattern.
    pub is_inclusive: bool,
    /// The last piece was given: next comes the sign that it was.
    pub is_over: Cell<bool>,
    /// For each length of a match, the longest shorter one that it ends with.
    shorter: Vec<usize>,
}

impl Pattern {
    /// `bytes` is not empty.
    pub fn new(bytes: &[u8], is_inclusive: bool) -> Pattern {
        let mut shorter = vec![0; bytes.len() + 1];
        let mut state = 0;
        for at in 1..bytes.len() {
            while state > 0 && bytes[state] != bytes[at] {
                state = shorter[state];
            }
            state += usize::from(bytes[state] == bytes[at]);
            shorter[at + 1] = state;
        }
        Pattern { bytes: bytes.to_vec(), is_inclusive, is_over: Cell::new(false), shorter }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// After `state` matching bytes comes `byte`, which does not go on with the pattern: how much
    /// of it matches nevertheless, if that is more than `byte` alone.
    fn recover(&self, state: usize, byte: u8) -> Option<usize> {
        let mut state = self.shorter[state];
        while state > 0 && self.bytes[state] != byte {
            state = self.shorter[state];
        }
        (state > 0).then_some(state + 1)
    }
}

/// How far a search has come.
#[derive(Debug)]
pub struct Search {
    /// Bytes of the inbox that were looked at.
    at: usize,
    /// How many of the last of them match.
    state: usize,
    /// Bytes that may still be given; `None`: as many as there are.
    rest: Option<usize>,
}

/// What a search has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The pattern, behind this many bytes.
    Pattern(usize),
    /// A piece of this many bytes that does not end with it.
    Piece(usize),
}

impl Search {
    /// `size`: the most bytes of a piece; 0 has no limit.
    pub fn new(size: usize) -> Search {
        Search { at: 0, state: 0, rest: (size > 0).then_some(size) }
    }

    /// Bytes that are no part of the pattern, so far.
    pub fn certain(&self) -> usize {
        self.at - self.state
    }

    pub fn is_in_pieces(&self) -> bool {
        self.rest.is_some()
    }

    /// Looks on in `bytes`, which begin where they began before.
    pub fn look(&mut self, pattern: &Pattern, bytes: &[u8]) -> Option<Found> {
        while self.at < bytes.len() {
            if self.state == 0 && !self.skip(pattern, bytes) {
                return self.is_full().then(|| Found::Piece(self.certain()));
            }
            let byte = bytes[self.at];
            if byte == pattern.bytes[self.state] {
                self.at += 1;
                self.state += 1;
                if self.state == pattern.len() {
                    return Some(Found::Pattern(self.certain()));
                }
                continue;
            }
            let given = match pattern.recover(self.state, byte) {
                Some(state) => {
                    let given = self.state + 1 - state;
                    self.at += 1;
                    self.state = state;
                    given
                }
                None => std::mem::take(&mut self.state),
            };
            self.give(given);
            if self.is_full() {
                return Some(Found::Piece(self.certain()));
            }
        }
        None
    }

    /// Goes to where the pattern may begin; false if that is not among `bytes`, or not in the
    /// piece.
    fn skip(&mut self, pattern: &Pattern, bytes: &[u8]) -> bool {
        let ahead = &bytes[self.at..];
        let ahead = &ahead[..ahead.len().min(self.rest.unwrap_or(usize::MAX))];
        let first = memchr::memchr(pattern.bytes[0], ahead);
        let given = first.unwrap_or(ahead.len());
        self.at += given;
        self.give(given);
        first.is_some()
    }

    fn give(&mut self, n: usize) {
        if let Some(rest) = &mut self.rest {
            *rest = rest.saturating_sub(n);
        }
    }

    fn is_full(&self) -> bool {
        self.rest == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &str) -> Option<Found> {
        Search::new(0).look(&Pattern::new(pattern.as_bytes(), false), text.as_bytes())
    }

    #[test]
    fn the_first_pattern_is_found() {
        assert_eq!(whole("--", "ab-c--d--"), Some(Found::Pattern(4)));
        assert_eq!(whole("aab", "aaaab"), Some(Found::Pattern(2)));
        assert_eq!(whole("abcabd", "abcabcabd"), Some(Found::Pattern(3)));
        assert_eq!(whole("x", "x"), Some(Found::Pattern(0)));
        assert_eq!(whole("ab", "aaa"), None);
    }

    #[test]
    fn pieces_end_where_they_should() {
        let pattern = Pattern::new(b"--abc", false);
        let text = b"hello, world --- ab--abcdef";
        let (mut at, mut pieces) = (0, Vec::new());
        loop {
            let found = Search::new(4).look(&pattern, &text[at..]).unwrap();
            let (Found::Piece(n) | Found::Pattern(n)) = found;
            pieces.push(String::from_utf8_lossy(&text[at..at + n]).into_owned());
            at += n;
            if matches!(found, Found::Pattern(_)) {
                break;
            }
        }
        assert_eq!(pieces.concat(), "hello, world --- ab");
        assert!(pieces.iter().all(|piece| piece.len() <= 5), "{pieces:?}");
    }

    proptest::proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            pattern in "[ab]{1,5}", text in "[abc]{0,40}", cut in 0usize..40,
        ) {
            let compiled = Pattern::new(pattern.as_bytes(), false);
            let mut search = Search::new(0);
            let cut = cut.min(text.len());
            let found = search.look(&compiled, &text.as_bytes()[..cut]);
            let certain = search.certain();
            let found = found.or_else(|| search.look(&compiled, text.as_bytes()));
            let expected = text.find(&pattern).map(Found::Pattern);
            if let Some(at) = text.find(&pattern) {
                assert!(certain <= at + pattern.len());
            }
            assert_eq!(found, expected);
        }
    }
}
