//! A dict whose memory another process scribbles over: no operation may crash or hang.
#![no_main]

#[path = "../../shm/tests/scribble/mod.rs"]
mod scribble;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| scribble::drive(data));
