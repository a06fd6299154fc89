//! Takes the workers' samples out of their queues and hands them to every program.

use super::complaint::Complaint;
use super::outbox::Outbox;
use crate::event::{self, Zone};
use std::rc::Rc;
use std::time::Duration;

/// How often the queues are looked at: while something comes, and at most.
const BUSY: Duration = Duration::from_millis(20);
const IDLE: Duration = Duration::from_millis(200);
/// Bytes handed out before others of the helper have their turn.
const BATCH_BYTES: usize = 64 << 10;

/// Runs for the helper's life.
pub async fn hand_out(queues: Vec<Rc<Zone>>, outboxes: Vec<Rc<Outbox>>) {
    let unread = Complaint::new("samples that no program read in time were dropped".into());
    let full = Complaint::new("samples that found their queue full were dropped".into());
    let mut lost: Vec<u64> = queues.iter().map(|zone| zone.queue().stats().dropped).collect();
    let (mut pause, mut batch) = (BUSY, Vec::new());
    loop {
        let mut count = 0;
        for (zone, lost) in queues.iter().zip(&mut lost) {
            while batch.len() < BATCH_BYTES && zone.queue().pop(&mut batch).is_some() {
                count += 1;
            }
            let dropped = zone.queue().stats().dropped;
            if dropped > *lost {
                full.count(dropped - *lost, &format_args!("zone \"{}\"", zone.name), b"");
            }
            *lost = dropped;
        }
        for outbox in &outboxes {
            if count > 0 {
                outbox.push(&batch, count);
            }
            match outbox.take_dropped() {
                0 => {}
                dropped => unread.count(dropped, &"its program is slow or away", b""),
            }
        }
        match batch.len() {
            0 => pause = (pause * 2).min(IDLE),
            full if full >= BATCH_BYTES => pause = Duration::from_millis(1),
            _ => pause = BUSY,
        }
        batch.clear();
        event::sleep(pause).await;
    }
}
