//! How jemalloc is set.
//!
//! A worker is one thread that has many requests open, each with a few blocks of some kilobytes.
//! By default a thread caches 20 free blocks of such a size; the rest goes back to the arena and
//! comes again under its lock, which cost 5 % of a proxied request's instructions with 64
//! connections. The cache is looked through every 4 MiB, not every 64 KiB, which is ten requests.
//! And one thread needs one arena.

use libc::c_char;

/// jemalloc looks for this name; see its manual for the words.
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
// SAFETY: of the name: only jemalloc defines it besides, weakly, to be overridden like this.
// Of the reference: the text is static, and ends with NUL.
static MALLOC_CONF: Option<&'static c_char> = Some(unsafe {
    &*c"narenas:1,lg_tcache_nslots_mul:4,tcache_nslots_small_min:128,tcache_gc_incr_bytes:4194304"
        .as_ptr()
});
