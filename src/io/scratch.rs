//! The thread's read buffer: connections that wait hold none of their own.

use std::cell::RefCell;

/// Bytes of the scratch buffer.
pub const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Option<Box<[u8; SCRATCH_BYTES]>>> = const { RefCell::new(None) };
}

/// Lends the thread's 64 KiB, with whatever bytes the last user left. Whoever is lent it while it
/// is lent already gets another one for the time.
#[inline]
pub fn with_scratch<T>(f: impl FnOnce(&mut [u8; SCRATCH_BYTES]) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_else(fresh);
    let result = f(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

#[cold]
fn fresh() -> Box<[u8; SCRATCH_BYTES]> {
    vec![0; SCRATCH_BYTES].into_boxed_slice().try_into().expect("the length is the array's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_lent_again_and_within_itself() {
        let first = with_scratch(|a| {
            with_scratch(|b| assert_ne!(a.as_ptr(), b.as_ptr()));
            a[0] = 9;
            a.as_ptr()
        });
        let _ = first;
        with_scratch(|a| assert_eq!(a.len(), SCRATCH_BYTES));
    }
}
