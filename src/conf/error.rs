//! What can be wrong with a configuration, in nginx's own sentences.

use std::fmt;
use std::rc::Rc;

/// A fault of the operator's: the sentence, and where in which file.
///
/// Prints as nginx does: `unknown directive "x" in /etc/nginx/nginx.conf:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// nginx's sentence without the place.
    pub what: String,
    /// File (or `command line`) and line; `None` when the fault has no place in the text.
    pub at: Option<(Rc<str>, usize)>,
}

impl Error {
    /// A fault that no line of the configuration is to blame for.
    pub fn placeless(what: impl Into<String>) -> Error {
        Error { what: what.into(), at: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some((file, line)) if &**file == COMMAND_LINE => {
                let _ = line;
                write!(f, "{} in {COMMAND_LINE}", self.what)
            }
            Some((file, line)) => write!(f, "{} in {file}:{line}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Error {}

/// The "file name" of directives given with `-g`.
pub(super) const COMMAND_LINE: &str = "command line";

/// Why a setter refuses a statement. The reader adds directive name, file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No table knows the name.
    Unknown,
    /// Some table knows it, but not in this block.
    NotAllowedHere,
    /// Too many or too few arguments.
    WrongArity,
    /// A block where a simple directive stands.
    NoBlock,
    /// A simple directive where a block is needed.
    NeedsBlock,
    /// Given twice on one level.
    Duplicate,
    /// `"x" directive invalid value`.
    InvalidValue,
    /// `invalid parameter "p"`.
    InvalidParameter(String),
    /// `value must be between A and B`.
    OutOfRange(i64, i64),
    /// A sentence of its own.
    Says(String),
    /// A fault inside a nested block or file: it has its place already.
    Located(Error),
}

impl Reason {
    /// A sentence of its own.
    pub fn says(what: impl Into<String>) -> Reason {
        Reason::Says(what.into())
    }

    /// The located error, for directive `name` at `file:line`.
    pub(super) fn locate(self, name: &str, file: &Rc<str>, line: usize) -> Error {
        let what = match self {
            Reason::Located(e) => return e,
            Reason::Unknown => format!("unknown directive \"{name}\""),
            Reason::NotAllowedHere => format!("\"{name}\" directive is not allowed here"),
            Reason::WrongArity => format!("invalid number of arguments in \"{name}\" directive"),
            Reason::NoBlock => format!("directive \"{name}\" is not terminated by \";\""),
            Reason::NeedsBlock => format!("directive \"{name}\" has no opening \"{{\""),
            Reason::Duplicate => format!("\"{name}\" directive is duplicate"),
            Reason::InvalidValue => format!("\"{name}\" directive invalid value"),
            Reason::InvalidParameter(p) => format!("invalid parameter \"{p}\""),
            Reason::OutOfRange(low, high) if high == i64::MAX => {
                format!("value must be equal to or greater than {low}")
            }
            Reason::OutOfRange(low, high) => format!("value must be between {low} and {high}"),
            Reason::Says(s) => s,
        };
        Error { what, at: Some((file.clone(), line)) }
    }
}

impl From<Error> for Reason {
    fn from(e: Error) -> Reason {
        Reason::Located(e)
    }
}
