//! `ngx_stat_*`: the words in which nginx counts connections and requests of all processes.
//! Exporters read them through ffi.
//!
//! nginx's are shared memory. Ours are this process's, and say what was true when a timer began:
//! that is where exporters read them.

use crate::event;
use crate::http::HttpConf;
use crate::http::modules::stub_status;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// For how long they are good enough.
const FRESH: Duration = Duration::from_millis(500);

thread_local! {
    static REFRESHED: Cell<Option<Instant>> = const { Cell::new(None) };
}

macro_rules! words {
    ($($name:ident $symbol:ident)*) => {$(
        static $name: AtomicU64 = AtomicU64::new(0);
        #[allow(non_upper_case_globals)]
        #[unsafe(no_mangle)]
        pub static $symbol: &AtomicU64 = &$name;
    )*};
}
words! {
    ACCEPTED ngx_stat_accepted
    HANDLED ngx_stat_handled
    REQUESTS ngx_stat_requests
    ACTIVE ngx_stat_active
    READING ngx_stat_reading
    WRITING ngx_stat_writing
    WAITING ngx_stat_waiting
}

/// Makes them true, if they have not been for a while.
pub fn refresh(http: &HttpConf) {
    let now = event::now();
    if REFRESHED.get().is_some_and(|last| now.duration_since(last) < FRESH) {
        return;
    }
    REFRESHED.set(Some(now));
    let census = stub_status::counted(http);
    ACCEPTED.store(census.accepted, Relaxed);
    HANDLED.store(census.handled, Relaxed);
    REQUESTS.store(census.requests, Relaxed);
    ACTIVE.store(census.active, Relaxed);
    READING.store(census.reading, Relaxed);
    WRITING.store(census.writing, Relaxed);
    WAITING.store(census.waiting, Relaxed);
}
