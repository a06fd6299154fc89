//! An immutable blob: built off-path in a memfd, sealed, then mapped read-only by every process.
//!
//! The seals make the mapping as good as a constant: nobody, not even the builder, can change or
//! truncate it. Header and checksum tell a reader that it holds what the builder finished. How the
//! descriptor travels (SCM_RIGHTS, exec) is not decided here.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::Mmap;
use nix::fcntl::SealFlag;

use crate::hash::hash;
use crate::region::{OpenError, add_seals, map_sealed, sealable_memfd};

/// `"tollsnap"`.
const MAGIC: u64 = u64::from_le_bytes(*b"tollsnap");
/// Bytes before the content; a cache line keeps the content aligned.
const HEADER: usize = 64;
/// Bytes per step of the checksum.
const BLOCK: usize = 64 << 10;

/// A finished snapshot, mapped; dereferences to its content.
pub struct Snapshot {
    map: Mmap,
    file: File,
    generation: u64,
}

/// A snapshot being written.
pub struct SnapshotBuilder {
    file: File,
    kind: u32,
    block: Vec<u8>,
    len: u64,
    sum: u64,
}

impl SnapshotBuilder {
    /// Starts one. `kind` is the reader's idea of what it holds.
    pub fn new(name: &str, kind: u32) -> Result<SnapshotBuilder, OpenError> {
        let mut file = sealable_memfd(name)?;
        file.seek(SeekFrom::Start(HEADER as u64))?;
        Ok(SnapshotBuilder { file, kind, block: Vec::with_capacity(BLOCK), len: 0, sum: 0 })
    }

    /// Seals it under a generation number. The descriptor is close-on-exec.
    pub fn finish(self, generation: u64) -> Result<Snapshot, OpenError> {
        self.finish_in_steps(generation, &mut || ())
    }

    /// The same, calling `step` between short pieces of work.
    pub fn finish_in_steps(
        mut self,
        generation: u64,
        step: &mut dyn FnMut(),
    ) -> Result<Snapshot, OpenError> {
        self.write_block()?;
        let words = [MAGIC, u64::from(self.kind), generation, self.len, self.sum];
        self.file.seek(SeekFrom::Start(0))?;
        for word in words {
            self.file.write_all(&word.to_le_bytes())?;
        }
        if self.len == 0 {
            self.file.set_len(HEADER as u64)?;
        }
        add_seals(
            &self.file,
            SealFlag::F_SEAL_WRITE
                | SealFlag::F_SEAL_SHRINK
                | SealFlag::F_SEAL_GROW
                | SealFlag::F_SEAL_SEAL,
        )?;
        Snapshot::open_in_steps(self.file.into(), self.kind, step)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.file.write_all(&self.block)?;
            self.sum = hash(self.sum, &self.block);
            self.len += self.block.len() as u64;
            self.block.clear();
        }
        Ok(())
    }
}

impl Write for SnapshotBuilder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.write_block()?;
        }
        Ok(n)
    }

    /// Nothing to do: blocks are of one size, and nobody reads before `finish`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Snapshot {
    /// Maps what somebody sent, after checking seals, header and checksum.
    pub fn open(fd: OwnedFd, kind: u32) -> Result<Snapshot, OpenError> {
        Snapshot::open_in_steps(fd, kind, &mut || ())
    }

    /// The same, calling `step` between short pieces of work.
    pub fn open_in_steps(
        fd: OwnedFd,
        kind: u32,
        step: &mut dyn FnMut(),
    ) -> Result<Snapshot, OpenError> {
        let file = File::from(fd);
        if file.metadata()?.len() < HEADER as u64 {
            return Err(OpenError::Refused("too short for a snapshot"));
        }
        let map = map_sealed(&file)?;
        let word =
            |n: usize| u64::from_le_bytes(map[n * 8..n * 8 + 8].try_into().expect("eight bytes"));
        if word(0) != MAGIC || word(1) != u64::from(kind) {
            return Err(OpenError::Refused("not a snapshot of this kind"));
        }
        let content = &map[HEADER..];
        let mut add = |sum, block: &[u8]| {
            step();
            hash(sum, block)
        };
        if word(3) != content.len() as u64 || word(4) != content.chunks(BLOCK).fold(0, &mut add) {
            return Err(OpenError::Refused("an unfinished or damaged snapshot"));
        }
        let generation = word(2);
        Ok(Snapshot { map, file, generation })
    }

    /// The number it was finished under.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The descriptor to send.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Deref for Snapshot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map[HEADER..]
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot(generation {}, {} bytes)", self.generation, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_cannot_be_changed() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let mut b = SnapshotBuilder::new("s", 3).unwrap();
        b.write_all(&bytes).unwrap();
        let s = b.finish(42).unwrap();
        let mut t = Snapshot::open(s.fd().try_clone_to_owned().unwrap(), 3).unwrap();
        assert_eq!((t.generation(), t[..] == bytes[..]), (42, true));
        assert!(t.file.write_all(b"x").is_err() && t.file.set_len(10).is_err());
        assert!(Snapshot::open(s.fd().try_clone_to_owned().unwrap(), 4).is_err());
        let empty = SnapshotBuilder::new("s", 3).unwrap().finish(1).unwrap();
        assert!(empty.is_empty());
    }

    #[test]
    fn the_unsealed_the_damaged_and_the_short_are_refused() {
        let mut b = SnapshotBuilder::new("s", 3).unwrap();
        b.write_all(b"content").unwrap();
        let s = b.finish(1).unwrap();
        let all = WRITE_SEALS;
        for (cut, flip, seals) in [(0, None, SealFlag::empty()), (1, None, all), (0, Some(66), all)]
        {
            let mut copy = s.map.to_vec();
            copy.truncate(copy.len() - cut);
            if let Some(at) = flip {
                copy[at] ^= 1;
            }
            let mut file = sealable_memfd("copy").unwrap();
            file.write_all(&copy).unwrap();
            add_seals(&file, seals).unwrap();
            assert!(Snapshot::open(file.into(), 3).is_err());
        }
    }

    const WRITE_SEALS: SealFlag =
        SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);
}
