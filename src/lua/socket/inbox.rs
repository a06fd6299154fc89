//! What a socket has received and nobody has taken yet.

/// Room that an empty inbox keeps, bytes.
const ROOM_KEPT: usize = 16 << 10;

/// Bytes in the order of their coming.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the first that was not taken stands.
    start: usize,
}

impl Inbox {
    /// All that was not taken.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets the first `n` bytes.
    pub fn take(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n;
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.start = 0;
        match self.bytes.capacity() > ROOM_KEPT {
            true => self.bytes = Vec::new(),
            false => self.bytes.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone() {
        let mut inbox = Inbox::default();
        inbox.push(b"hello");
        inbox.take(2);
        inbox.push(b" you");
        assert_eq!(inbox.bytes(), b"llo you");
        inbox.take(5);
        inbox.push(b"!");
        assert_eq!((inbox.bytes(), inbox.len()), (&b"ou!"[..], 3));
        inbox.take(3);
        assert_eq!(inbox.len(), 0);
        inbox.push(&vec![b'x'; 2 * ROOM_KEPT]);
        inbox.take(2 * ROOM_KEPT);
        assert_eq!(inbox.bytes.capacity(), 0);
    }
}
