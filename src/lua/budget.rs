//! `lua_budget`: how long code may take before the content, from the request's first byte.
//!
//! The time runs over all code of the access phase and those before it, and over what it waits
//! for: cosockets, sleeps, threads. When it is spent the code is cancelled where it waits and the
//! request goes on as the directive says.
//!
//! Deliberately absent: interrupting code that computes and never waits. It is judged when it
//! waits next or ends.

use super::phase::{ACCESS, Phases, REWRITE, SERVER_REWRITE};
use super::run::Outcome;
use crate::conf::{Reading, Reason, value};
use crate::event;
use crate::http::{Request, Verdict};
use crate::log;
use std::time::Duration;

/// The directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    time: Duration,
    on_timeout: OnTimeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTimeout {
    /// The request goes on as if the code had allowed it.
    Pass,
    /// It ends with this status.
    Finish(u16),
}

/// What became of the budget, in the request's slots: `$lua_budget_status`.
#[derive(Default)]
struct Status(&'static str);

impl Budget {
    /// Reads `lua_budget time [on_timeout=pass|deny|status] | off`; `off` is no budget.
    pub fn read(r: &mut Reading) -> Result<Option<Budget>, Reason> {
        let words = r.take_args();
        if words[0] == "off" && words.len() == 1 {
            return Ok(None);
        }
        let time = value::milliseconds(&words[0]).filter(|time| !time.is_zero());
        let time = time.ok_or(Reason::InvalidValue)?;
        let on_timeout = match words.get(1).map(|word| word.strip_prefix("on_timeout=")) {
            None | Some(Some("pass")) => OnTimeout::Pass,
            Some(Some("deny")) => OnTimeout::Finish(403),
            Some(status) => {
                let status = status.and_then(|status| status.parse().ok());
                let status = status.filter(|status| (400..=599).contains(status));
                OnTimeout::Finish(status.ok_or_else(|| Reason::InvalidParameter(words[1].clone()))?)
            }
        };
        Ok(Some(Budget { time, on_timeout }))
    }

    /// Whether code of this phase spends it.
    pub fn covers(phase: Phases) -> bool {
        phase & (SERVER_REWRITE | REWRITE | ACCESS) != 0
    }

    /// When it is spent.
    pub fn end(&self, r: &Request) -> std::time::Instant {
        r.tally.started + self.time
    }

    /// Notes how the code ended. `None`: it was cancelled; then this is how the request goes on.
    pub fn settle(&self, r: &mut Request, phase: Phases, outcome: Option<&Outcome>) -> Verdict {
        let is_late = event::now() > self.end(r);
        let status = match outcome {
            Some(Outcome::Failed) => "error",
            Some(_) if !is_late => "ok",
            _ => "timeout",
        };
        r.slots.of::<Status>().0 = status;
        if outcome.is_some() {
            return Verdict::Decline;
        }
        log::warn!(&*r, "lua budget of {} ms is spent", self.time.as_millis());
        match self.on_timeout {
            OnTimeout::Finish(status) => Verdict::Finish(status),
            OnTimeout::Pass if phase == ACCESS => Verdict::Settle,
            OnTimeout::Pass => Verdict::Decline,
        }
    }
}

/// `$lua_budget_status`: `ok`, `timeout` or `error`; nothing where no code spent one.
pub fn status(r: &Request, out: &mut Vec<u8>) -> bool {
    let status = r.slots.get::<Status>();
    status.inspect(|status| out.extend_from_slice(status.0.as_bytes())).is_some()
}
