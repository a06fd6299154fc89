//! Blocks of memory that are used again and again.

use std::cell::RefCell;
use std::rc::Rc;

/// The sizes in which blocks come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// 4 KiB: heads, small bodies.
    Small,
    /// 16 KiB: a TLS record, a page.
    Medium,
    /// 64 KiB: bulk.
    Large,
}

impl Size {
    pub fn bytes(self) -> usize {
        match self {
            Size::Small => 4 << 10,
            Size::Medium => 16 << 10,
            Size::Large => 64 << 10,
        }
    }
    /// The smallest that holds so many bytes; `None` if none does.
    pub fn for_bytes(bytes: usize) -> Option<Size> {
        [Size::Small, Size::Medium, Size::Large].into_iter().find(|size| bytes <= size.bytes())
    }
    /// Unused blocks a thread keeps: at most 512 KiB, 1 MiB and 2 MiB.
    fn keep(self) -> usize {
        match self {
            Size::Small => 128,
            Size::Medium => 64,
            Size::Large => 32,
        }
    }
}

/// A block, pooled or not.
pub(super) struct Block {
    pub bytes: Vec<u8>,
    /// Where it goes when nobody uses it any more.
    size: Option<Size>,
}

thread_local! {
    static FREE: RefCell<[Vec<Rc<Block>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

/// A block nobody else uses, with whatever bytes its last user left.
pub(super) fn take(size: Size) -> Rc<Block> {
    let pooled = FREE.with_borrow_mut(|free| free[size as usize].pop());
    pooled.unwrap_or_else(|| Rc::new(Block { bytes: vec![0; size.bytes()], size: Some(size) }))
}

/// A block for bytes that exist already. It will not be pooled.
pub(super) fn wrap(bytes: Vec<u8>) -> Rc<Block> {
    Rc::new(Block { bytes, size: None })
}

/// A user goes; the last one gives the block back.
#[inline]
pub(super) fn release(block: Rc<Block>) {
    let Some(size) = block.size else { return };
    if Rc::strong_count(&block) > 1 {
        return;
    }
    // While the thread ends there is no pool any more; the block is just freed.
    let _ = FREE.try_with(|free| {
        let free = &mut free.borrow_mut()[size as usize];
        if free.len() < size.keep() {
            free.push(block);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_after_its_last_user() {
        let block = take(Size::Small);
        let at = block.bytes.as_ptr();
        let second = block.clone();
        release(block);
        let other = take(Size::Small);
        assert_ne!(other.bytes.as_ptr(), at);
        release(second);
        assert_eq!(take(Size::Small).bytes.as_ptr(), at);
    }

    #[test]
    fn the_pool_is_bounded() {
        let blocks: Vec<_> = (0..Size::Large.keep() + 5).map(|_| take(Size::Large)).collect();
        blocks.into_iter().for_each(release);
        FREE.with_borrow(|free| assert_eq!(free[Size::Large as usize].len(), Size::Large.keep()));
    }

    #[test]
    fn the_smallest_fitting_size_is_found() {
        assert_eq!(Size::for_bytes(0), Some(Size::Small));
        assert_eq!(Size::for_bytes(4097), Some(Size::Medium));
        assert_eq!(Size::for_bytes(65_536), Some(Size::Large));
        assert_eq!(Size::for_bytes(65_537), None);
    }
}
