//! Reads the commands.

use super::{Command, RawLoc, Said, SubBody, Subrequest};
use crate::conf::*;
use crate::http::Template;

/// `echo [-n] [--] word …`
pub fn echo(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let said = said(r)?;
    c.add(Command::Say(said))
}

/// `echo_before_body`, `echo_after_body`
pub fn around(list: &mut Vec<Said>, r: &mut Reading) -> Result<(), Reason> {
    list.push(said(r)?);
    Ok(())
}

fn said(r: &mut Reading) -> Result<Said, Reason> {
    let args = r.take_args();
    let (mut at, mut ends_line) = (0, true);
    while let Some(arg) = args.get(at).filter(|arg| arg.starts_with('-')) {
        match arg.as_str() {
            "--" => {
                at += 1;
                break;
            }
            "-n" => ends_line = false,
            _ => break,
        }
        at += 1;
    }
    let words = args[at..].iter().map(|arg| Template::parse(arg, r)).collect::<Result<_, _>>()?;
    Ok(Said { words, ends_line })
}

/// `echo_duplicate count text`
pub fn duplicate(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    c.add(Command::Duplicate(Template::parse(&args[0], r)?, Template::parse(&args[1], r)?))
}

/// `echo_sleep seconds`
pub fn sleep(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    c.add(Command::Sleep(Template::parse(&args[0], r)?))
}

/// `echo_blocking_sleep seconds`
pub fn blocking_sleep(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    c.add(Command::BlockingSleep(Template::parse(&args[0], r)?))
}

/// `echo_location uri [args]`
pub fn location(c: &mut RawLoc, r: &mut Reading, waits: bool) -> Result<(), Reason> {
    let args = r.take_args();
    let uri = Template::parse(&args[0], r)?;
    let args = args.get(1).map(|args| Template::parse(args, r)).transpose()?;
    let method = Template::plain("GET");
    c.add(Command::Subrequest(Box::new(Subrequest { method, uri, args, body: None, waits })))
}

/// `echo_subrequest method uri [-q args] [-b body | -f file]`
pub fn subrequest(c: &mut RawLoc, r: &mut Reading, waits: bool) -> Result<(), Reason> {
    let (directive, words) = (r.name().to_owned(), r.take_args());
    let method = Template::parse(&words[0], r)?;
    let uri = Template::parse(&words[1], r)?;
    let (mut args, mut body) = (None, None);
    let mut rest = words[2..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or_else(|| {
            Reason::says(format!("{directive} should take an argument for \"{option}\""))
        });
        match option.as_str() {
            "-q" => args = Some(Template::parse(value?, r)?),
            "-b" => body = Some(SubBody::Text(Template::parse(value?, r)?)),
            "-f" => {
                let path = Template::parse(value?, r)?;
                body = Some(SubBody::File(path, r.paths.prefix.clone()));
            }
            _ => {
                return Err(Reason::says(format!("unknown option for {directive}: \"{option}\"")));
            }
        }
    }
    c.add(Command::Subrequest(Box::new(Subrequest { method, uri, args, body, waits })))
}

/// `echo_foreach_split [--] delimiter text`
pub fn foreach_split(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let words = r.take_args();
    let words = match words.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => &words,
    };
    let [delimiter, text] = words else { return Err(Reason::WrongArity) };
    c.add(Command::Foreach(Template::parse(delimiter, r)?, Template::parse(text, r)?))
}

/// `echo_exec uri [args]`
pub fn exec(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let words = r.take_args();
    let uri = Template::parse(&words[0], r)?;
    let args = words.get(1).map(|args| Template::parse(args, r)).transpose()?;
    c.add(Command::Exec(uri, args))
}

/// `echo_status code`
pub fn status(c: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    if c.status.is_some() {
        return Err(Reason::Duplicate);
    }
    let status = r.arg(0).parse().ok().filter(|status| (200..=999).contains(status));
    let bad = || Reason::says(format!("invalid status number \"{}\"", r.arg(0)));
    c.status = Some(status.ok_or_else(bad)?);
    Ok(())
}

/// Loops are closed, and not within one another.
pub fn check_loops(commands: &[Command]) -> Result<(), Reason> {
    let mut is_open = false;
    for command in commands {
        match (command, is_open) {
            (Command::Foreach(..), true) => {
                return Err(Reason::says(
                    "nested \"echo_foreach_split\" is not allowed".to_owned(),
                ));
            }
            (Command::Foreach(..), false) => is_open = true,
            (Command::End, false) => {
                return Err(Reason::says("\"echo_end\" without \"echo_foreach_split\"".to_owned()));
            }
            (Command::End, true) => is_open = false,
            _ => {}
        }
    }
    match is_open {
        true => Err(Reason::says("\"echo_foreach_split\" without \"echo_end\"".to_owned())),
        false => Ok(()),
    }
}
