//! A log file, read by waiting for what it should say.

use super::{matches, wait_for};
use std::path::PathBuf;

pub struct Log {
    path: PathBuf,
}

impl Log {
    pub fn at(path: PathBuf) -> Log {
        Log { path }
    }

    pub fn text(&self) -> String {
        std::fs::read(&self.path)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The lines so far that contain `pattern` (`*` stands for anything).
    pub fn lines(&self, pattern: &str) -> Vec<String> {
        let pattern = format!("*{pattern}*");
        self.text().lines().filter(|l| matches(&pattern, l)).map(str::to_string).collect()
    }

    /// Waits for a line that contains `pattern`, and returns it.
    #[track_caller]
    pub fn expect(&self, pattern: &str) -> String {
        self.expect_times(pattern, 1).swap_remove(0)
    }

    /// Waits for `n` lines that contain `pattern`.
    #[track_caller]
    pub fn expect_times(&self, pattern: &str, n: usize) -> Vec<String> {
        let found = wait_for(|| Some(self.lines(pattern)).filter(|lines| lines.len() >= n));
        found.unwrap_or_else(|| {
            panic!("{}: no {n} x {pattern:?} in\n{}", self.path.display(), self.text())
        })
    }

    /// Waits until the file's last line is a whole one, and returns all lines.
    #[track_caller]
    pub fn expect_lines(&self, n: usize) -> Vec<String> {
        self.expect_times("", n)
    }

    /// There is no such line. Only says something after an event that would have caused it.
    #[track_caller]
    pub fn refuse(&self, pattern: &str) {
        let found = self.lines(pattern);
        assert!(found.is_empty(), "{}: unexpected {found:#?}", self.path.display());
    }
}
