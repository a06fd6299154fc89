//! What the `error_log` directives of one place said, before anything is opened.
use super::output::{Output, Target};
use super::{Files, Level, Levels, Log, Syslog};
use std::path::{Path, PathBuf};

/// The targets of one place, in the order they were written.
#[derive(Debug, Default)]
pub struct Spec(Vec<Target>);

impl Spec {
    /// Adds what `error_log WORDS;` says. `full_name` completes a relative path with the prefix.
    pub fn add(
        &mut self,
        words: &[&str],
        files: &mut Files,
        full_name: impl FnOnce(&str) -> PathBuf,
    ) -> Result<(), SpecError> {
        let (&name, levels) = words.split_first().ok_or(SpecError::Empty)?;
        let output = if name == "stderr" {
            files.keeps_stderr = true;
            Output::Stderr
        } else if name.starts_with("memory:") {
            return Err(SpecError::Memory);
        } else if let Some(about) = name.strip_prefix("syslog:") {
            Output::Syslog(Syslog::parse(about).map_err(SpecError::Syslog)?.into())
        } else {
            Output::File(files.add(&full_name(name)))
        };
        self.0.push(Target { levels: parse_levels(levels)?, output });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The log of this place. It may be used at once; its files write after [`Files::open`].
    pub fn into_log(self) -> Log {
        Log::of(self.0)
    }

    /// The log of the process: as nginx, a file is always among the targets, `default` if none is
    /// named.
    pub fn into_main_log(mut self, files: &mut Files, default: Option<&Path>) -> Log {
        let has_file = self.0.iter().any(|t| matches!(t.output, Output::File(_) | Output::Stderr));
        if !has_file {
            let output = match default {
                Some(path) => Output::File(files.add(path)),
                None => Output::Stderr,
            };
            self.0.push(Target { levels: Levels::up_to(Level::Error), output });
        }
        self.into_log()
    }
}

fn parse_levels(words: &[&str]) -> Result<Levels, SpecError> {
    Levels::parse(words).map_err(|error| SpecError::Level(error.to_string()))
}

/// Why an `error_log` cannot be, in nginx's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("invalid number of arguments in \"error_log\" directive")]
    Empty,
    #[error("\"memory:\" logs are not supported")]
    Memory,
    #[error("{0}")]
    Level(String),
    #[error("{0}")]
    Syslog(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&[&str]]) -> Result<Log, SpecError> {
        let (mut files, mut spec) = (Files::default(), Spec::default());
        for words in lines {
            spec.add(words, &mut files, |name| Path::new("/prefix").join(name))?;
        }
        Ok(spec.into_main_log(&mut files, Some(Path::new("/prefix/logs/error.log"))))
    }

    #[test]
    fn the_main_log_always_has_a_file() {
        let path = |log: &Log| log.first_file().map(|file| file.path().to_owned());
        let default = log(&[]).unwrap();
        assert_eq!(path(&default), Some("/prefix/logs/error.log".into()));
        assert!(default.takes(Level::Error) && !default.takes(Level::Warn));
        let named = log(&[&["logs/x", "debug"], &["stderr"]]).unwrap();
        assert_eq!(path(&named), Some("/prefix/logs/x".into()));
        assert!(named.has_stderr() && named.takes(Level::Debug));
        let remote = log(&[&["syslog:server=127.0.0.1:5140", "info"]]).unwrap();
        assert_eq!(path(&remote), Some("/prefix/logs/error.log".into()));
    }

    #[test]
    fn what_is_wrong_is_said_in_nginx_words() {
        let said = |words: &[&str]| log(&[words]).unwrap_err().to_string();
        assert_eq!(said(&["x", "loud"]), "invalid log level \"loud\"");
        assert_eq!(said(&["syslog:tag=a"]), "no syslog server specified");
        assert_eq!(said(&["memory:32k"]), "\"memory:\" logs are not supported");
    }
}
