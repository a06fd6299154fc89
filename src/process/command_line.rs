//! The command line, in nginx's spelling: `-tq`, `-s reload`, `-c/etc/x`.
use super::signals::Order;
use crate::cycle::{Options, Paths};
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What was asked for.
#[derive(Debug, Default)]
pub struct CommandLine {
    pub help: bool,
    pub version: bool,
    /// `-V`: also what it was built with.
    pub configure: bool,
    pub test: bool,
    /// `-T`: also print the configuration.
    pub dump: bool,
    pub quiet: bool,
    pub order: Option<Order>,
    prefix: Option<OsString>,
    error_log: Option<OsString>,
    conf_file: Option<OsString>,
    directives: Option<String>,
    /// `--directives`: print the directive reference.
    pub reference: bool,
}

impl CommandLine {
    /// Reads the arguments (the program's name not among them). The error is nginx's sentence.
    pub fn parse(arguments: &[OsString]) -> Result<CommandLine, String> {
        let mut line = CommandLine::default();
        let mut parser = Parser::from_args(arguments);
        loop {
            let option = match parser.next().map_err(|error| error.to_string())? {
                None => return Ok(line),
                Some(Arg::Short(letter)) => letter,
                Some(Arg::Long("directives")) => {
                    line.reference = true;
                    continue;
                }
                Some(Arg::Long(_)) => return Err("invalid option: \"-\"".into()),
                Some(Arg::Value(word)) => {
                    return Err(format!("invalid option: \"{}\"", word.to_string_lossy()));
                }
            };
            line.take(option, &mut parser)?;
        }
    }

    fn take(&mut self, option: char, parser: &mut Parser) -> Result<(), String> {
        let mut value = |what: &str| {
            parser.value().map_err(|_| format!("option \"-{option}\" requires {what}"))
        };
        match option {
            '?' | 'h' => (self.version, self.help) = (true, true),
            'v' => self.version = true,
            'V' => (self.version, self.configure) = (true, true),
            't' => self.test = true,
            'T' => (self.test, self.dump) = (true, true),
            'q' => self.quiet = true,
            'p' => self.prefix = Some(value("directory name")?),
            'e' => self.error_log = Some(value("file name")?),
            'c' => self.conf_file = Some(value("file name")?),
            'g' => self.directives = Some(value("parameter")?.to_string_lossy().into_owned()),
            's' => {
                let word = value("parameter")?.to_string_lossy().into_owned();
                let order = Order::named(&word);
                self.order = Some(order.ok_or(format!("invalid option: \"-s {word}\""))?);
            }
            other => return Err(format!("invalid option: \"{other}\"")),
        }
        Ok(())
    }

    /// Where everything lies.
    pub fn options(&self) -> Options {
        // A folder, whether or not a slash was written: `-p dir` gives `dir/…`, and `-p ''`
        // nothing.
        let prefix = self.prefix.as_ref().map_or_else(|| PREFIX.into(), PathBuf::from);
        let conf_file = prefix.join(self.conf_file.as_deref().unwrap_or(CONF_FILE.as_ref()));
        let conf_prefix = match (conf_file.parent(), &self.conf_file) {
            (Some(folder), _) if folder != Path::new("") => folder.to_owned(),
            _ => prefix.clone(),
        };
        let error_log = self.error_log.clone().unwrap_or_else(|| ERROR_LOG.into());
        let error_log = match error_log.to_str() {
            Some("stderr" | "") => None,
            _ => Some(prefix.join(error_log)),
        };
        let paths = Paths { prefix, conf_prefix };
        Options { paths, conf_file, error_log, directives: self.directives.clone() }
    }
}

/// What `-h` prints after the version.
pub fn usage() -> String {
    format!(
        "Usage: tollbar [-?hvVtTq] [-s signal] [-p prefix]\n\
         \x20              [-e filename] [-c filename] [-g directives]\n\n\
         Options:\n\
         \x20 -?,-h         : this help\n\
         \x20 -v            : show version and exit\n\
         \x20 -V            : show version and configure options then exit\n\
         \x20 -t            : test configuration and exit\n\
         \x20 -T            : test configuration, dump it and exit\n\
         \x20 -q            : suppress non-error messages during configuration testing\n\
         \x20 -s signal     : send signal to a master process: stop, quit, reopen, reload\n\
         \x20 -p prefix     : set prefix path (default: {PREFIX})\n\
         \x20 -e filename   : set error log file (default: {ERROR_LOG})\n\
         \x20 -c filename   : set configuration file (default: {CONF_FILE})\n\
         \x20 -g directives : set global directives out of configuration file\n"
    )
}

/// Where a package puts its files; set when it is built.
pub(super) const PREFIX: &str = match option_env!("TOLLBAR_PREFIX") {
    Some(prefix) => prefix,
    None => "/usr/local/tollbar",
};
const CONF_FILE: &str = "conf/nginx.conf";
const ERROR_LOG: &str = "logs/error.log";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<CommandLine, String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        CommandLine::parse(&words)
    }

    #[test]
    fn letters_may_stand_together_and_values_too() {
        let line = parse("-tq -c/etc/x.conf -p /srv -s reload").unwrap();
        assert!(line.test && line.quiet && !line.dump);
        assert_eq!(line.order, Some(Order::Reload));
        let options = line.options();
        assert_eq!(options.conf_file, PathBuf::from("/etc/x.conf"));
        assert_eq!(options.paths.conf_prefix, PathBuf::from("/etc"));
        assert_eq!(options.error_log, Some("/srv/logs/error.log".into()));
    }

    #[test]
    fn relative_names_start_at_the_prefix() {
        let options = parse("-p dir/ -c nginx.conf -e error.log").unwrap().options();
        assert_eq!(options.conf_file, PathBuf::from("dir/nginx.conf"));
        assert_eq!(options.paths.conf_prefix, PathBuf::from("dir"));
        assert_eq!(options.error_log, Some("dir/error.log".into()));
        assert_eq!(parse("-e stderr").unwrap().options().error_log, None);
        assert_eq!(parse("-c x -p .").unwrap().options().conf_file, PathBuf::from("./x"));
    }

    #[test]
    fn faults_are_said_as_nginx_says_them() {
        let said = |words: &str| parse(words).unwrap_err();
        assert_eq!(said("-x"), "invalid option: \"x\"");
        assert_eq!(said("reload"), "invalid option: \"reload\"");
        assert_eq!(said("--test"), "invalid option: \"-\"");
        assert_eq!(said("-c"), "option \"-c\" requires file name");
        assert_eq!(said("-p"), "option \"-p\" requires directory name");
        assert_eq!(said("-s"), "option \"-s\" requires parameter");
        assert_eq!(said("-s restart"), "invalid option: \"-s restart\"");
    }
}
