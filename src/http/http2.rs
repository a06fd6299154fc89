//! `http2`: whether a server speaks it, and what one connection may ask for.

use super::module::{HttpModule, Merging};
use super::serve_h2::Limits;
use crate::conf::*;

/// The module.
pub struct Http2;

impl HttpModule for Http2 {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("http2", HTTP | SRV, flag(|c| &mut c.on)),
        d("http2_max_concurrent_streams", HTTP | SRV, num(1, 65535, |c| &mut c.streams)),
        d("http2_chunk_size", ANY_HTTP, size(|c| &mut c.chunk_bytes)),
        d("http2_body_preread_size", HTTP | SRV, size(|c| &mut c.window_bytes)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        // The window must hold a whole frame for clients that wait for it.
        const WINDOW_MIN_BYTES: u64 = 65_535;
        let old = &up.limits;
        Ok(Loc {
            on: raw.on.unwrap_or(up.on),
            limits: Limits {
                streams: raw.streams.map_or(old.streams, |n| n as u32),
                chunk_bytes: raw
                    .chunk_bytes
                    .map_or(old.chunk_bytes, |n| n.clamp(1, 1 << 20) as usize),
                window_bytes: raw
                    .window_bytes
                    .map_or(old.window_bytes, |n| n.clamp(WINDOW_MIN_BYTES, 1 << 30) as u32),
                ..*old
            },
        })
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    on: Option<bool>,
    streams: Option<i64>,
    chunk_bytes: Option<u64>,
    window_bytes: Option<u64>,
}

/// What is in force.
pub struct Loc {
    /// Whether the server speaks HTTP/2.
    pub on: bool,
    /// What one connection may ask for.
    pub limits: Limits,
}

impl Default for Loc {
    fn default() -> Loc {
        let limits = Limits {
            streams: 128,
            chunk_bytes: 8 << 10,
            window_bytes: 65_536,
            header_list_bytes: 32 << 10,
        };
        Loc { on: false, limits }
    }
}
