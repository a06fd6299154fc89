//! Follows blocks and includes and hands each statement to the block that is open.

use super::error::COMMAND_LINE;
use super::{Error, Lexer, Reason, Shelf, Token};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How deep files may include one another; also bounds a file that includes itself.
const INCLUDE_DEPTH_MAX: usize = 32;
/// How deep blocks may nest.
const BLOCK_DEPTH_MAX: usize = 64;

/// Something that statements can stand in: the top of the file, `http`, a location …
pub trait Block {
    /// Takes the statement that `reading` stands on.
    ///
    /// A statement that opens a block is taken with its block: the implementor calls
    /// [`Reading::block`] or [`Reading::rows`].
    fn statement(&mut self, reading: &mut Reading) -> Result<Found, Reason>;
}

/// Whether a block knows a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Taken.
    Yes,
    /// Known, but not in this block.
    NotHere,
    /// Never heard of.
    No,
}

/// What a block answers from one or several tables' `set_from`: the first table that took the
/// statement speaks; one that only knows it elsewhere is heard when nobody took it.
pub fn found(
    tables: impl IntoIterator<Item = Option<Result<(), Reason>>>,
) -> Result<Found, Reason> {
    let mut known = Found::No;
    for answer in tables {
        match answer {
            None => {}
            Some(Err(Reason::NotAllowedHere)) => known = Found::NotHere,
            Some(result) => return result.map(|()| Found::Yes),
        }
    }
    Ok(known)
}

/// A remark that does not stop the start: `conflicting server name … ignored`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// nginx's level: `warn` or `notice`.
    pub level: &'static str,
    /// The sentence with its place.
    pub text: String,
}

/// Where relative paths start.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// `-p`, with a trailing `/`: logs, html, temporary files.
    pub prefix: PathBuf,
    /// The folder of the main configuration file: includes, certificates.
    pub conf_prefix: PathBuf,
}

impl Paths {
    /// `name` relative to the server's prefix.
    pub fn in_prefix(&self, name: &str) -> PathBuf {
        self.prefix.join(name)
    }
    /// `name` relative to the configuration's folder.
    pub fn in_conf(&self, name: &str) -> PathBuf {
        self.conf_prefix.join(name)
    }
    /// A certificate or key, whose name is a file's as above; `data:` stands for itself.
    pub fn certificate(&self, name: &str) -> String {
        match name.starts_with("data:") {
            true => name.to_owned(),
            false => self.in_conf(name).to_string_lossy().into_owned(),
        }
    }
}

/// One pass over a configuration: the cursor, the statement it stands on, and what the modules
/// share meanwhile.
pub struct Reading {
    /// What modules share while reading.
    pub shelf: Shelf,
    /// Where relative paths start.
    pub paths: Paths,
    /// Remarks to be logged once a log is open.
    pub notes: Vec<Note>,
    /// Every file read, in order, for `-T`.
    pub dump: Vec<(String, Vec<u8>)>,
    files: Vec<Source>,
    words: Vec<String>,
    opens: bool,
    depth: usize,
}

struct Source {
    name: Rc<str>,
    lexer: Lexer,
}

/// What ends a run of statements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Brace,
    EndOfFile,
}

impl Reading {
    /// A pass that has read nothing yet.
    pub fn new(paths: Paths) -> Reading {
        Reading {
            shelf: Shelf::default(),
            paths,
            notes: Vec::new(),
            dump: Vec::new(),
            files: Vec::new(),
            words: Vec::new(),
            opens: false,
            depth: 0,
        }
    }

    /// Reads a whole file into `block`.
    pub fn file(&mut self, path: &Path, block: &mut dyn Block) -> Result<(), Error> {
        let text = std::fs::read(path).map_err(|e| Error {
            what: format!("open() \"{}\" failed ({})", path.display(), os_error(&e)),
            at: self.files.last().map(|s| (s.name.clone(), s.lexer.line())),
        })?;
        let name = path.display().to_string();
        if !self.dump.iter().any(|(known, _)| *known == name) {
            self.dump.push((name.clone(), text.clone()));
        }
        self.source(name, text, block)
    }

    /// Reads the directives of `-g`.
    pub fn command_line(&mut self, text: &str, block: &mut dyn Block) -> Result<(), Error> {
        self.source(COMMAND_LINE.into(), text.into(), block)
    }

    /// Reads text under a name of its own (tests, generated configuration).
    pub fn source(
        &mut self,
        name: String,
        text: Vec<u8>,
        block: &mut dyn Block,
    ) -> Result<(), Error> {
        self.files.push(Source { name: name.into(), lexer: Lexer::new(text) });
        let result = self.run(block, Until::EndOfFile);
        self.files.pop();
        result
    }

    /// Reads the block that the current statement opened into `block`.
    pub fn block(&mut self, block: &mut dyn Block) -> Result<(), Reason> {
        debug_assert!(self.opens, "only a statement with a block can be entered");
        self.depth += 1;
        if self.depth > BLOCK_DEPTH_MAX {
            return Err(Reason::says("blocks are nested too deep"));
        }
        let result = self.run(block, Until::Brace);
        self.depth -= 1;
        Ok(result?)
    }

    /// Reads the block that the current statement opened as plain rows (`map`, `types`, `geo`):
    /// each statement's words go to `row`, the first being [`Reading::name`].
    pub fn rows(
        &mut self,
        row: impl FnMut(&mut Reading) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        struct Rows<F>(F);
        impl<F: FnMut(&mut Reading) -> Result<(), Reason>> Block for Rows<F> {
            fn statement(&mut self, reading: &mut Reading) -> Result<Found, Reason> {
                if reading.opens_block() {
                    return Err(Reason::says("unexpected \"{\""));
                }
                (self.0)(reading).map(|()| Found::Yes)
            }
        }
        self.block(&mut Rows(row))
    }

    fn run(&mut self, block: &mut dyn Block, until: Until) -> Result<(), Error> {
        loop {
            let source = self.files.last_mut().expect("a source is open");
            let token = source.lexer.next_token();
            let (name, line) = (source.name.clone(), source.lexer.line());
            let here = |what: String| Error { what, at: Some((name.clone(), line)) };
            match token.map_err(here)? {
                Token::Statement(words) => (self.words, self.opens) = (words, false),
                Token::Open(words) => (self.words, self.opens) = (words, true),
                Token::Close if until == Until::Brace => return Ok(()),
                Token::Close => return Err(here("unexpected \"}\"".into())),
                Token::End if until == Until::EndOfFile => return Ok(()),
                Token::End => {
                    return Err(here("unexpected end of file, expecting \"}\"".into()));
                }
            }
            let directive = self.words[0].clone();
            let result = if directive == "include" && !self.opens {
                self.include(block)
            } else {
                block.statement(self).and_then(|found| match found {
                    Found::Yes => Ok(()),
                    Found::NotHere => Err(Reason::NotAllowedHere),
                    Found::No => Err(Reason::Unknown),
                })
            };
            result.map_err(|reason| reason.locate(&directive, &name, line))?;
        }
    }

    fn include(&mut self, block: &mut dyn Block) -> Result<(), Reason> {
        let [_, pattern] = &self.words[..] else { return Err(Reason::WrongArity) };
        if self.files.len() > INCLUDE_DEPTH_MAX {
            return Err(Reason::says("files include one another too deep"));
        }
        let path = self.paths.in_conf(pattern);
        let pattern = path.to_string_lossy().into_owned();
        if !pattern.contains(['*', '?', '[']) {
            return Ok(self.file(&path, block)?);
        }
        let found = glob::glob(&pattern)
            .map_err(|e| Reason::says(format!("glob() \"{pattern}\" failed ({e})")))?;
        for path in found.flatten() {
            self.file(&path, block)?;
        }
        Ok(())
    }

    /// The directive's name.
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// The arguments after the name.
    pub fn args(&self) -> &[String] {
        &self.words[1..]
    }

    /// The arguments, for setters that read a block or share the pass while using them.
    pub fn take_args(&mut self) -> Vec<String> {
        self.words.split_off(1)
    }

    /// Argument `index`, counted from 0 after the name; its presence is the table's promise.
    pub fn arg(&self, index: usize) -> &str {
        &self.words[index + 1]
    }

    /// Whether the statement ends in `{`.
    pub fn opens_block(&self) -> bool {
        self.opens
    }

    /// File and line of the cursor.
    pub fn place(&self) -> (Rc<str>, usize) {
        let source = self.files.last().expect("a source is open");
        (source.name.clone(), source.lexer.line())
    }

    /// An error at the cursor, for faults found outside a setter.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error { what: what.into(), at: Some(self.place()) }
    }

    /// Takes the raw text of the open block; see [`Lexer::raw_block`].
    pub fn raw_block(
        &mut self,
        find_end: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<String, Reason> {
        let source = self.files.last_mut().expect("a source is open");
        source.lexer.raw_block(find_end).map_err(Reason::Says)
    }

    /// Remarks at `warn` level, with the place of the cursor.
    pub fn warn(&mut self, what: impl std::fmt::Display) {
        let (file, line) = self.place();
        self.notes.push(Note { level: "warn", text: format!("{what} in {file}:{line}") });
    }

    /// `on` or `off` in the first argument.
    pub fn flag_value(&self) -> Result<bool, Reason> {
        match self.arg(0) {
            a if a.eq_ignore_ascii_case("on") => Ok(true),
            a if a.eq_ignore_ascii_case("off") => Ok(false),
            other => Err(Reason::says(format!(
                "invalid value \"{other}\" in \"{}\" directive, it must be \"on\" or \"off\"",
                self.name()
            ))),
        }
    }
}

/// `2: No such file or directory`, as nginx prints errno.
pub fn os_error(e: &std::io::Error) -> String {
    let text = e.to_string();
    match (e.raw_os_error(), text.find(" (os error")) {
        (Some(code), Some(cut)) => format!("{code}: {}", &text[..cut]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[derive(Default)]
    struct Top {
        port: Option<i64>,
        names: Vec<String>,
        inner: Option<Box<Top>>,
    }
    const TOP: &[Directive<Top>] = &[
        d("port", MAIN, num(1, 65535, |c| &mut c.port)),
        d("name", MAIN | HTTP, call(at_least(1), Top::name)),
        d("only_inside", HTTP, call(exactly(0), |_, _| Ok(()))),
        d("inner", MAIN, block(exactly(0), Top::inner)),
    ];
    impl Top {
        fn name(&mut self, r: &mut Reading) -> Result<(), Reason> {
            self.names.extend(r.args().iter().cloned());
            Ok(())
        }
        fn inner(&mut self, r: &mut Reading) -> Result<(), Reason> {
            let mut inner = Top::default();
            r.block(&mut Inside(&mut inner))?;
            self.inner = Some(Box::new(inner));
            Ok(())
        }
    }
    struct Inside<'a>(&'a mut Top);
    impl Block for Top {
        fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
            found([set_from(TOP, MAIN, self, r)])
        }
    }
    impl Block for Inside<'_> {
        fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
            found([set_from(TOP, HTTP, self.0, r)])
        }
    }
    fn read(text: &str) -> Result<Top, String> {
        let mut top = Top::default();
        let mut reading = Reading::new(Paths::default());
        reading.source("F".into(), text.into(), &mut top).map_err(|e| e.to_string())?;
        Ok(top)
    }

    #[test]
    fn values_and_blocks() {
        let top = read("port 80; name a b;\ninner { name c; only_inside; }").unwrap();
        assert_eq!(top.port, Some(80));
        assert_eq!(top.names, ["a", "b"]);
        assert_eq!(top.inner.unwrap().names, ["c"]);
    }

    #[test]
    fn sentences_are_nginx_s() {
        for (text, want) in [
            ("\nnope;", "unknown directive \"nope\" in F:2"),
            ("only_inside;", "\"only_inside\" directive is not allowed here in F:1"),
            ("inner { port 1; }", "\"port\" directive is not allowed here in F:1"),
            ("port;", "invalid number of arguments in \"port\" directive in F:1"),
            ("port 1;port 2;", "\"port\" directive is duplicate in F:1"),
            ("port 0;", "value must be between 1 and 65535 in F:1"),
            ("port x;", "invalid number \"x\" in \"port\" directive in F:1"),
            ("port 1 {}", "directive \"port\" is not terminated by \";\" in F:1"),
            ("inner;", "directive \"inner\" has no opening \"{\" in F:1"),
            ("inner {", "unexpected end of file, expecting \"}\" in F:1"),
            ("}", "unexpected \"}\" in F:1"),
        ] {
            assert_eq!(read(text).err().unwrap(), want, "{text}");
        }
    }

    #[test]
    fn includes_follow_globs_and_refuse_loops() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("a.inc", "name a;");
        put("b.inc", "name b;");
        put("loop", "include loop;");
        let paths = Paths { prefix: dir.path().into(), conf_prefix: dir.path().into() };
        let go = |text: &str| {
            let (mut top, mut r) = (Top::default(), Reading::new(paths.clone()));
            r.source("F".into(), text.into(), &mut top).map(|()| top.names)
        };
        assert_eq!(go("include *.inc; include nothing*;").unwrap(), ["a", "b"]);
        assert!(go("include loop;").unwrap_err().what.contains("too deep"));
        assert!(go("include none;").unwrap_err().to_string().contains("(2: No such file"));
    }
}
