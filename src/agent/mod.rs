//! `agent {}`: what the privileged process and its helper do for the workers.
//!
//! ```text
//!  programs ──changes──►┐                     ┌──► keyval zones ──► workers look keys up
//!  collect  ──changes──►│  helper process     │
//!  programs ◄──samples──┘◄── queues ◄─────────┴──  workers, when a request is logged
//!  lists    ──networks──► helper ──► sealed snapshot on a board ──► workers map it
//! ```
//!
//! - `conf`: reads the block · `change`: one line of JSON becomes a change of a zone
//! - `feed`: programs, started again when they end · `lines`: what they say
//! - `collect`: files and HTTP sources that are read again and again
//! - `table`: large lists, put in force as a whole · `networks`: their lines
//! - `outbox`: what waits for a program to read · `complaint`: telling the log of many faults once
//!
//! **Invariant:** all of it happens in the helper process. Whatever a program or a source says, or
//! does not say, it costs bounded memory and a bounded share of the helper's time, is counted, and
//! reaches workers only as an entry of a zone or as a snapshot that they check.

mod change;
mod collect;
mod complaint;
mod conf;
mod feed;
mod lines;
pub mod networks;
mod outbox;
mod sample;
mod table;

pub use conf::{AgentBlock, tables};

use crate::event::{self, Post, Role, Service, Task, Zone};
use crate::http::keyval::KeyvalZones;
use crate::http::sampling::Samples;
use collect::Collector;
use feed::Feed;
use outbox::Outbox;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// What the block does in the processes of the tree.
pub struct Agent {
    feeds: Vec<Rc<Feed>>,
    collectors: Vec<Rc<Collector>>,
    tables: Vec<Rc<table::Feed>>,
    zones: KeyvalZones,
    samples: Samples,
    tasks: RefCell<Vec<Task>>,
}

impl Service for Agent {
    fn start(&self, post: &mut Post) -> io::Result<()> {
        if post.role.serves() {
            self.follow_tables();
        }
        if post.role == Role::Helper || post.role == Role::Single {
            self.help(post.workers);
        }
        Ok(())
    }

    /// Programs end here: they are not asked, since nothing of theirs is to be kept.
    fn quit(&self) {
        self.tasks.take().into_iter().for_each(Task::cancel);
    }
}

impl Agent {
    /// A worker's part: what is in force is there before the first request.
    fn follow_tables(&self) {
        let tables = self.tables.iter().map(|feed| &feed.table);
        for table in tables.filter(|table| table.is_looked_up()) {
            table.begin();
            self.tasks.borrow_mut().push(event::spawn(table.clone().follow()));
        }
    }

    fn help(&self, workers: usize) {
        let mut tasks = self.tasks.borrow_mut();
        let mut outboxes = Vec::new();
        for feed in &self.feeds {
            let outbox = Rc::new(Outbox::default());
            outboxes.push(outbox.clone());
            tasks.push(event::spawn(feed::keep(feed.clone(), self.zones.clone(), outbox)));
        }
        for collector in &self.collectors {
            tasks.push(event::spawn(collect::keep(collector.clone(), self.zones.clone())));
        }
        for feed in &self.tables {
            tasks.push(event::spawn(table::keep(feed.clone(), workers)));
        }
        let queues: Vec<Rc<Zone>> = self.samples.zones();
        if !queues.is_empty() {
            tasks.push(event::spawn(sample::hand_out(queues, outboxes)));
        }
    }
}
