//! Signals: how they are told in the log, and `-s`.
use super::pid_file;
use crate::log::{self, Os};
use crate::sys::process;
use crate::sys::signal::{Received, Signal};
use std::path::Path;

/// What `-s` can order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Stop,
    Quit,
    Reopen,
    Reload,
}

impl Order {
    pub fn named(word: &str) -> Option<Order> {
        match word {
            "stop" => Some(Order::Stop),
            "quit" => Some(Order::Quit),
            "reopen" => Some(Order::Reopen),
            "reload" => Some(Order::Reload),
            _ => None,
        }
    }

    fn signal(self) -> Signal {
        match self {
            Order::Stop => Signal::Term,
            Order::Quit => Signal::Quit,
            Order::Reopen => Signal::Usr1,
            Order::Reload => Signal::Hup,
        }
    }
}

/// Gives an order to the master that the pid file names. False if it could not be given; why has
/// been logged.
pub fn send(order: Order, pid_file: &Path) -> bool {
    log::notice!("signal process started");
    let pid = match pid_file::read(pid_file) {
        Ok(pid) => pid,
        Err(message) => {
            log::error!("{message}");
            return false;
        }
    };
    match process::kill(pid, order.signal()) {
        Ok(()) => true,
        Err(error) => {
            log::alert!("kill({pid}, {}) failed{}", order.signal().number(), Os(&error));
            false
        }
    }
}

/// nginx's line about a signal: `signal 1 (SIGHUP) received from 123, reconfiguring`.
pub fn tell(received: Received, action: &str) {
    let (number, name) = (received.signal.number(), received.signal.name());
    match received.sender {
        0 => log::notice!("signal {number} ({name}) received{action}"),
        pid => log::notice!("signal {number} ({name}) received from {pid}{action}"),
    }
}

/// What a child of the master is told to do by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Terminate,
    Quit,
    Reopen,
    Nothing,
}

/// A child's reading of a signal, told in the log.
pub fn of_child(received: Received, daemonized: bool) -> Told {
    let (told, action) = match received.signal {
        Signal::Term | Signal::Int => (Told::Terminate, ", exiting"),
        Signal::Quit => (Told::Quit, ", shutting down"),
        Signal::Winch if daemonized => (Told::Quit, ", shutting down"),
        Signal::Usr1 => (Told::Reopen, ", reopening logs"),
        Signal::Hup | Signal::Usr2 => (Told::Nothing, ", ignoring"),
        _ => (Told::Nothing, ""),
    };
    tell(received, action);
    told
}
