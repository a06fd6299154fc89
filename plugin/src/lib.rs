//! Native plugins for Tollbar, in safe Rust.
//!
//! A plugin is a `cdylib` with one type that is a [`Plugin`], and a line that exports it:
//!
//! ```
//! use tollbar_plugin::{Plugin, Request, Verdict, export_plugin};
//!
//! struct Teapot;
//!
//! impl Plugin for Teapot {
//!     const NAME: &'static str = "teapot";
//!     fn configure(_: &[&str]) -> Result<Teapot, String> {
//!         Ok(Teapot)
//!     }
//!     fn access(&self, r: &mut Request<'_>) -> Verdict {
//!         if r.header("x-coffee").is_some() { Verdict::Status(418) } else { Verdict::Decline }
//!     }
//! }
//!
//! export_plugin!(Teapot);
//! ```
//!
//! `load_plugin` names the library, `plugin teapot …` stands where it takes part. When which
//! function is called, in which process, and what it must not do (wait, start threads) is told in
//! `include/tollbar_plugin.h`, whose safe face this crate is. A panic ends the request with 500.
//!
//! **Invariant:** `abi` is the only file with `unsafe`.

mod abi;

pub use abi::Request;
#[doc(hidden)]
pub use abi::{Descriptor, Host, enter};

/// A plugin; a value is what one `plugin` line configures.
pub trait Plugin: Sized + 'static {
    /// The name for `plugin NAME`: letters, digits, `_`, `-`, `.`.
    const NAME: &'static str;
    /// For the log.
    const VERSION: &'static str = "";

    /// Called once, with the arguments of `load_plugin`; the error refuses the configuration.
    fn init(args: &[&str]) -> Result<(), String> {
        match args {
            [] => Ok(()),
            _ => Err("it takes no arguments".into()),
        }
    }

    /// Called for each `plugin` line; the error refuses the configuration.
    fn configure(args: &[&str]) -> Result<Self, String>;

    /// At the end of the rewrite phase.
    fn rewrite(&self, _r: &mut Request<'_>) -> Verdict {
        Verdict::Decline
    }

    /// May the client have it?
    fn access(&self, _r: &mut Request<'_>) -> Verdict {
        Verdict::Decline
    }

    /// The head of the reply is about to be sent.
    fn header_filter(&self, _r: &mut Request<'_>) -> Verdict {
        Verdict::Decline
    }

    /// The request is over.
    fn log(&self, _r: &mut Request<'_>) {}
}

/// What a callback decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: others are asked.
    Decline,
    /// In `access`: allowed.
    Allow,
    /// [`Request::reply`] made the answer.
    Reply,
    /// The request ends with this status, 400 to 599.
    Status(u16),
}

/// Why a function of the server did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such header, variable or key.
    None,
    /// An argument is not what it should be.
    Invalid,
    /// Not in this callback.
    NotNow,
    /// The configuration declares no such dict.
    NoDict,
    /// The dict is full.
    NoRoom,
    /// A later version of the server's, which this crate does not know.
    Other(i32),
}

/// A level of the error log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Emerg = 1,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// Exports a [`Plugin`] from this library.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        $crate::__export! { $plugin }
    };
}
