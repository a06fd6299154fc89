//! Memory of a VM: bounded where Lua runs, always given where Rust uses Lua's API.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

thread_local! {
    /// Rust code that uses Lua's API is running: no error may pass through its frames.
    static IN_RUST: Cell<bool> = const { Cell::new(true) };
}

/// What the VM's allocator knows. Where Lua runs, more than `limit` is refused, and Lua raises
/// "not enough memory"; where Rust uses its API, memory is always given, as an error must not
/// pass through Rust's frames: the limit counts again when Lua goes on.
pub struct Memory {
    used: Cell<usize>,
    /// Bytes; `usize::MAX` is no limit.
    limit: usize,
    /// The limit was hit.
    was_refused: Cell<bool>,
}

impl Memory {
    /// Of no more than `limit` bytes.
    pub fn new(limit: Option<usize>) -> Memory {
        let limit = limit.unwrap_or(usize::MAX);
        Memory { used: Cell::new(0), limit, was_refused: Cell::new(false) }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Whether the limit was hit since the last time that this was asked.
    pub fn was_refused(&self) -> bool {
        self.was_refused.take()
    }
}

/// What LuaJIT expects of memory.
const ALIGN: usize = 16;

/// Lua's allocator.
///
/// # Safety
/// Lua's contract: `data` is null or came from here with the size `old`.
pub unsafe extern "C" fn allocate(
    memory: *mut c_void,
    data: *mut c_void,
    old: usize,
    new: usize,
) -> *mut c_void {
    // SAFETY: the record lives as long as the state.
    let memory = unsafe { &*memory.cast::<Memory>() };
    let layout = |bytes| Layout::from_size_align(bytes, ALIGN).ok();
    let old = if data.is_null() { 0 } else { old };
    let others = memory.used.get() - old;
    if new > old && new > memory.limit.saturating_sub(others) && !IN_RUST.get() {
        memory.was_refused.set(true);
        return ptr::null_mut();
    }
    // SAFETY: a block is given back with the size that it was given with, which Lua knows.
    let block: *mut c_void = unsafe {
        match (old, new) {
            (0, 0) => ptr::null_mut(),
            (0, _) => layout(new).map_or(ptr::null_mut(), |layout| alloc(layout).cast()),
            (_, 0) => {
                dealloc(data.cast(), layout(old).expect("it was given"));
                ptr::null_mut()
            }
            _ if layout(new).is_none() => ptr::null_mut(),
            _ => realloc(data.cast(), layout(old).expect("it was given"), new).cast(),
        }
    };
    if block.is_null() && new > 0 {
        if IN_RUST.get() {
            handle_alloc_error(layout(new).unwrap_or(Layout::new::<u8>()));
        }
        return block;
    }
    memory.used.set(others + new);
    block
}

/// Says who runs until it is dropped: Lua, whose errors Lua catches, or Rust.
pub struct Runs(bool);

impl Runs {
    pub fn rust() -> Runs {
        Runs(IN_RUST.replace(true))
    }
    pub fn lua() -> Runs {
        Runs(IN_RUST.replace(false))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        IN_RUST.set(self.0);
    }
}
