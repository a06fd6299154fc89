//! Programs whose output changes zones, and who read the workers' samples.
//!
//! A program is started, listened to, and started again when it ends, with growing pauses if it
//! ends early. It may write as fast as it likes: it is read so fast and no faster, and its pipe
//! holds it back.

use super::change::{Change, NoChange};
use super::complaint::Complaint;
use super::lines::{Line, Lines};
use super::outbox::Outbox;
use crate::event::{self, Task};
use crate::http::keyval::KeyvalZones;
use crate::io::Pipe;
use crate::log::{self, Os};
use crate::sys::process::Ended;
use crate::sys::program::{Pipes, Program};
use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Lines taken from one program in a second.
const LINES_PER_SECOND: u32 = 20_000;
/// Lines of its standard error that go to the log in a second.
const REMARKS_PER_SECOND: u32 = 10;
/// A program that ends sooner is said to end early.
const SHORT_LIFE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether a program has ended without closing its output.
const LOOKS: Duration = Duration::from_secs(1);

/// One `helper` of the block.
#[derive(Debug)]
pub struct Feed {
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs: the prefix.
    pub folder: PathBuf,
    /// The pause before it is started again.
    pub restart: Duration,
}

/// Sees to it that the program runs. Dropped, it kills it.
pub async fn keep(feed: Rc<Feed>, zones: KeyvalZones, outbox: Rc<Outbox>) {
    let ear = Rc::new(Ear::new(&feed.name, zones));
    let mut early_deaths = 0;
    loop {
        let born = event::now();
        match Program::start(&feed.command, &feed.folder) {
            Ok((program, pipes)) => live(&feed, program, pipes, &ear, &outbox).await,
            Err(error) => {
                let (name, program) = (&feed.name, &feed.command[0]);
                log::error!("helper \"{name}\": cannot start \"{program}\"{}", Os(&error));
            }
        }
        let early = event::now().duration_since(born) < SHORT_LIFE;
        early_deaths = if early { early_deaths + 1 } else { 0 };
        event::sleep(pause(feed.restart, early_deaths)).await;
    }
}

/// One life of the program.
async fn live(feed: &Feed, mut program: Program, pipes: Pipes, ear: &Rc<Ear>, outbox: &Rc<Outbox>) {
    let pid = program.id();
    log::notice!("helper \"{}\": start {pid}", feed.name);
    outbox.open(true);
    let heard = hear(&mut program, pipes, ear, outbox).await;
    outbox.open(false);
    let name = &feed.name;
    if let Err(error) = heard {
        log::error!("helper \"{name}\": its output cannot be read{}", Os(&error));
    }
    ear.nonsense.tell();
    match program.end() {
        Ok(Ended::Exited(code)) => log::warn!("helper \"{name}\": {pid} exited with code {code}"),
        Ok(Ended::Killed { signal, .. }) => {
            log::warn!("helper \"{name}\": {pid} exited on signal {signal}");
        }
        Err(error) => log::alert!("waitpid({pid}) failed{}", Os(&error)),
    }
}

/// Takes what the program says until it has ended or closed its output.
async fn hear(
    program: &mut Program,
    pipes: Pipes,
    ear: &Rc<Ear>,
    outbox: &Rc<Outbox>,
) -> io::Result<()> {
    let Pipes { stdin, stdout, stderr } = pipes;
    let (mut stdout, stdin, stderr) = (Lines::new(stdout)?, Pipe::new(stdin)?, Lines::new(stderr)?);
    let outbox = outbox.clone();
    // A program that does not read closes its end, or lets samples be dropped.
    let _writer = Side(event::spawn(async move { drop(outbox.pour(&stdin).await) }));
    let _remarks = Side(event::spawn(remarks(ear.clone(), stderr)));
    let budget = Budget::new(LINES_PER_SECOND);
    loop {
        let line = |line: Line<'_>| {
            budget.spend();
            ear.line(line);
        };
        match event::timeout(LOOKS, stdout.next(line)).await {
            Ok(Ok(true)) => budget.wait().await,
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) if program.ended().is_some() => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Passes a program's standard error on to the log.
async fn remarks(ear: Rc<Ear>, mut stderr: Lines) {
    let budget = Budget::new(REMARKS_PER_SECOND);
    loop {
        let take = |line: Line<'_>| match line {
            Line::Whole(text) | Line::TooLong(text) if budget.spend() => {
                let text = &text[..text.len().min(1000)];
                log::warn!("helper \"{}\" says: {}", ear.name, text.escape_ascii());
            }
            _ => ear.unsaid.count(1, &"too many in a second", b""),
        };
        if !matches!(stderr.next(take).await, Ok(true)) {
            return;
        }
    }
}

/// Makes changes of lines.
struct Ear {
    name: String,
    zones: KeyvalZones,
    nonsense: Complaint,
    unsaid: Complaint,
}

impl Ear {
    fn new(name: &str, zones: KeyvalZones) -> Ear {
        let complaint = |what| Complaint::new(format!("helper \"{name}\": {what}"));
        Ear {
            name: name.into(),
            zones,
            nonsense: complaint("lines of its output were no changes"),
            unsaid: complaint("lines of its standard error were not logged"),
        }
    }

    fn line(&self, line: Line<'_>) {
        let (text, made) = match line {
            Line::TooLong(text) => (text, Err(NoChange::TooLong)),
            Line::Whole(text) => {
                (text, Change::read(text).and_then(|change| change.make(&self.zones, None)))
            }
        };
        if let Err(why) = made {
            self.nonsense.count(1, &why, text);
        }
    }
}

/// A task that ends with its owner.
struct Side(Task);

impl Drop for Side {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// So many a second.
struct Budget {
    per_second: u32,
    spent: Cell<u32>,
    since: Cell<Instant>,
}

impl Budget {
    fn new(per_second: u32) -> Budget {
        Budget { per_second, spent: Cell::new(0), since: Cell::new(event::now()) }
    }

    /// Counts one; false if it is over the budget.
    fn spend(&self) -> bool {
        if event::now().duration_since(self.since.get()) >= Duration::from_secs(1) {
            self.spent.set(0);
            self.since.set(event::now());
        }
        self.spent.set(self.spent.get() + 1);
        self.spent.get() <= self.per_second
    }

    /// Waits for the next second if this one's are spent.
    async fn wait(&self) {
        if self.spent.get() >= self.per_second {
            event::sleep_until(self.since.get() + Duration::from_secs(1)).await;
        }
    }
}

/// The pause before the next life; it doubles with each early end.
fn pause(restart: Duration, early_deaths: u32) -> Duration {
    let doubled = restart.saturating_mul(1 << early_deaths.saturating_sub(1).min(10));
    doubled.max(Duration::from_millis(100)).min(PAUSE_MAX.max(restart))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let s = Duration::from_secs;
        assert_eq!(pause(s(1), 0), s(1));
        assert_eq!(pause(s(1), 1), s(1));
        assert_eq!(pause(s(1), 3), s(4));
        assert_eq!(pause(s(1), u32::MAX), PAUSE_MAX);
        assert_eq!(pause(s(600), 5), s(600));
        assert_eq!(pause(Duration::ZERO, 5), Duration::from_millis(100));
    }
}
