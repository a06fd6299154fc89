//! argv in, exit code out.
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;
use tollbar::cycle::{self, Draft, Listening, Opening, Options, Zones};
use tollbar::log::{self, Files, Level, Log};
use tollbar::process::{self, CommandLine, Launch};
use tollbar::sys;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let environment = env::vars_os().collect();
    let line = match CommandLine::parse(arguments.get(1..).unwrap_or_default()) {
        Ok(line) => line,
        Err(message) => {
            log::say(format_args!("{message}"));
            return ExitCode::FAILURE;
        }
    };
    if line.reference {
        print!("{}", cycle::reference());
        return ExitCode::SUCCESS;
    }
    if line.version {
        show_version(&line, arguments.first().map_or(OsStr::new(""), OsString::as_os_str));
        if !line.test {
            return ExitCode::SUCCESS;
        }
    }
    let options = line.options();
    open_first_log(&options, line.test);
    log::write_panics();
    let draft = match Draft::read(&options) {
        Ok(draft) => draft,
        Err(error) => {
            log::emerg!("{error}");
            return not_right(&line, &options);
        }
    };
    if line.test {
        return test(&line, &options, draft);
    }
    if let Some(order) = line.order {
        return exit_code(process::send(order, &draft.core.pid));
    }
    sys::title::claim();
    process::run(Launch { options, arguments, environment }, draft)
}

fn show_version(line: &CommandLine, called: &OsStr) {
    eprint!("{}", process::version(called));
    if line.help {
        eprintln!("{}", process::usage());
    }
    if line.configure {
        eprint!("{}", process::configuration(called));
    }
}

/// The log until the configuration names another one: `-e`, or the built-in file.
fn open_first_log(options: &Options, test: bool) {
    let level = if test { Level::Info } else { Level::Notice };
    let mut files = Files::default();
    let log = match &options.error_log {
        Some(path) => Log::file(files.add(path), level),
        None => Log::stderr(level),
    };
    let log = match files.open() {
        Ok(()) => log,
        Err(message) => {
            log::say(format_args!("[alert] could not open error log file: {message}"));
            Log::stderr(level)
        }
    };
    log::install(log);
}

/// `-t` and `-T`: opens what can be opened without disturbing a running server.
fn test(line: &CommandLine, options: &Options, draft: Draft) -> ExitCode {
    let file = options.conf_file.display();
    if !line.quiet {
        log::say(format_args!("the configuration file {file} syntax is ok"));
    }
    let dump = draft.dump.clone();
    let tried = process::rehearse_pid_file(&draft.core.pid).and_then(|()| {
        draft.open(&Listening::default(), &Zones::default(), Opening::Test).map(drop)
    });
    if let Err(message) = tried {
        log::emerg!("{message}");
        return not_right(line, options);
    }
    if !line.quiet {
        log::say(format_args!("configuration file {file} test is successful"));
    }
    if line.dump {
        let mut out = std::io::stdout().lock();
        for (name, text) in dump {
            let written = writeln!(out, "# configuration file {name}:")
                .and_then(|()| out.write_all(&text))
                .and_then(|()| writeln!(out));
            if written.is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn not_right(line: &CommandLine, options: &Options) -> ExitCode {
    if line.test {
        log::say(format_args!("configuration file {} test failed", options.conf_file.display()));
    }
    ExitCode::FAILURE
}

fn exit_code(done: bool) -> ExitCode {
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
