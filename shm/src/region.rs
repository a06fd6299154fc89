//! A memfd mapped shared: a header, a row of robust mutexes, then atomic words.
//!
//! The only file of this crate with `unsafe`. What it offers is safe to use whatever the memory
//! holds: words are `AtomicU64` (every bit pattern is valid and a concurrent writer harmless), an
//! index read from the memory is a claim that the word slice checks, and the mutexes lie outside
//! the words, so no mistake in an index can reach them.
//!
//! The size is sealed (`F_SEAL_SHRINK | F_SEAL_GROW`) and compared with `fstat` before mapping:
//! nobody can truncate the file under a reader and make it die of SIGBUS.
//!
//! `MmapMut::map_anon` is deliberately absent: it maps privately, and a forked child would write
//! into its own copy.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::CString;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Mmap, MmapMut, MmapOptions};
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A page of the machine, the unit of everything in a region. Bytes.
pub const PAGE: usize = 4096;
/// Longest name of a region, bytes.
pub const NAME_MAX: usize = 128;
/// Largest number of mutexes in a region.
const LOCKS_MAX: usize = 4096;
/// `"tollbar\x01"`; the last byte is the version of the header.
const MAGIC: u64 = u64::from_le_bytes(*b"tollbar\x01");

/// Nobody can truncate a file with these under its readers.
const SIZE_SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

// Words of the header.
const H_MAGIC: usize = 0;
const H_KIND: usize = 1;
const H_LEN: usize = 2;
const H_LOCKS: usize = 3;
const H_SEED: usize = 4;
const H_PARAM: usize = 5;
const H_NAME_LEN: usize = 6;
const H_NAME: usize = 8;

/// Why a descriptor is not a region we can use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("shared memory: {0}")]
    Os(#[from] io::Error),
    #[error("shared memory: {0}")]
    Refused(&'static str),
}

impl From<nix::Error> for OpenError {
    fn from(e: nix::Error) -> Self {
        OpenError::Os(e.into())
    }
}

/// What is fixed when a region is made. All processes derive the same layout from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What lives in it: a four-letter code of the owner module.
    pub kind: u32,
    /// Name shown to operators, at most [`NAME_MAX`] bytes.
    pub name: String,
    /// A number of the owner's, such as the declared size.
    pub param: u64,
    /// Number of mutexes.
    pub locks: usize,
    /// Number of 64-bit words after the mutexes.
    pub words: usize,
}

/// A mapped region. Unmapped and closed on drop; the memory lives while any process holds it.
pub struct Region {
    map: MmapMut,
    file: File,
    plan: Plan,
    seed: u64,
    words_at: usize,
}

// SAFETY: the mapping is reached only through atomics and process-shared mutexes.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a region of zeroed words and free mutexes. The descriptor is close-on-exec.
    pub fn create(plan: Plan) -> Result<Region, OpenError> {
        if plan.name.len() > NAME_MAX || plan.locks > LOCKS_MAX {
            return Err(OpenError::Refused("name too long or too many locks"));
        }
        let len = total_len(&plan).ok_or(OpenError::Refused("too large"))?;
        let file = sealable_memfd(&plan.name)?;
        file.set_len(len as u64)?;
        add_seals(&file, SIZE_SEALS)?;
        let region = Region::map(file, len, plan, RandomState::new().build_hasher().finish())?;
        for n in 0..region.plan.locks {
            region.mutex(n).expect("within the plan").init()?;
        }
        region.write_header();
        Ok(region)
    }

    /// Opens what another process made. Nothing is believed: size, seals, header and mutexes are
    /// checked, and `kind` must be the expected one. The owner compares the rest of the plan.
    pub fn open(fd: OwnedFd, kind: u32) -> Result<Region, OpenError> {
        let file = File::from(fd);
        let len = file.metadata()?.len();
        if len < PAGE as u64 || !seals(&file)?.contains(SIZE_SEALS) {
            return Err(OpenError::Refused("too short, or its size is not sealed"));
        }
        let len = usize::try_from(len).map_err(|_| OpenError::Refused("too large"))?;
        let nothing = Plan { kind, name: String::new(), param: 0, locks: 0, words: 0 };
        let mut region = Region::map(file, len, nothing, 0)?;
        region.read_header(kind, len)?;
        for n in 0..region.plan.locks {
            if !region.mutex(n).is_some_and(SharedMutex::looks_robust) {
                return Err(OpenError::Refused("a lock is not a robust mutex"));
            }
        }
        Ok(region)
    }

    /// What it was made with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Random number chosen when the region was made; keys the hashes of all processes.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// All words after the mutexes.
    #[inline(always)]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `words_at + 8 * plan.words` is within the mapping (checked in `map` and
        // `read_header`), page-aligned, and only ever accessed as atomics.
        unsafe {
            let base = self.map.as_ptr().add(self.words_at).cast::<AtomicU64>();
            std::slice::from_raw_parts(base, self.plan.words)
        }
    }

    /// Mutex number `n`, if the region has it.
    #[inline]
    pub fn mutex(&self, n: usize) -> Option<&SharedMutex> {
        if n >= self.plan.locks {
            return None;
        }
        // SAFETY: `n` is within the row of mutexes (checked), which starts page-aligned behind the
        // header and lies wholly inside the mapping; `SharedMutex` has interior mutability.
        Some(unsafe { &*self.map.as_ptr().add(PAGE).cast::<SharedMutex>().add(n) })
    }

    /// The descriptor, to hand to a child.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether the descriptor stays open over exec. Off unless asked.
    pub fn keep_over_exec(&self, keep: bool) -> Result<(), OpenError> {
        let flags = if keep { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        fcntl(&self.file, FcntlArg::F_SETFD(flags))?;
        Ok(())
    }

    fn map(file: File, len: usize, plan: Plan, seed: u64) -> Result<Region, OpenError> {
        // SAFETY: the file is a memfd whose size is sealed to `len`, so every page of the mapping
        // stays valid; other writers are allowed for by accessing it only through atomics.
        let map = unsafe { MmapOptions::new().len(len).map_mut(file.as_raw_fd())? };
        let words_at = words_at(plan.locks);
        Ok(Region { map, file, plan, seed, words_at })
    }

    fn header(&self) -> &[AtomicU64; PAGE / 8] {
        // SAFETY: every mapping holds at least one page, and is page-aligned.
        unsafe { &*self.map.as_ptr().cast::<[AtomicU64; PAGE / 8]>() }
    }

    fn write_header(&self) {
        let (h, plan) = (self.header(), &self.plan);
        for (n, chunk) in plan.name.as_bytes().chunks(8).enumerate() {
            h[H_NAME + n].store(load_le(chunk), Ordering::Relaxed);
        }
        let numbers = [
            (H_NAME_LEN, plan.name.len() as u64),
            (H_KIND, u64::from(plan.kind)),
            (H_LEN, self.map.len() as u64),
            (H_LOCKS, plan.locks as u64),
            (H_SEED, self.seed),
            (H_PARAM, plan.param),
        ];
        for (at, n) in numbers {
            h[at].store(n, Ordering::Relaxed);
        }
        h[H_MAGIC].store(MAGIC, Ordering::Release);
    }

    fn read_header(&mut self, kind: u32, len: usize) -> Result<(), OpenError> {
        let word = |at: usize| self.header()[at].load(Ordering::Acquire);
        if word(H_MAGIC) != MAGIC {
            return Err(OpenError::Refused("not a region, or of another version"));
        }
        if word(H_KIND) != u64::from(kind) || word(H_LEN) != len as u64 {
            return Err(OpenError::Refused("of another kind or size"));
        }
        let (locks, name_len) = (word(H_LOCKS) as usize, word(H_NAME_LEN) as usize);
        if locks > LOCKS_MAX || name_len > NAME_MAX || words_at(locks) > len {
            return Err(OpenError::Refused("its header contradicts itself"));
        }
        let mut name = Vec::with_capacity(name_len + 8);
        for n in 0..name_len.div_ceil(8) {
            name.extend_from_slice(&word(H_NAME + n).to_le_bytes());
        }
        name.truncate(name_len);
        let name = String::from_utf8(name).map_err(|_| OpenError::Refused("name is not text"))?;
        let (seed, param) = (word(H_SEED), word(H_PARAM));
        let words_at = words_at(locks);
        self.plan = Plan { kind, name, param, locks, words: (len - words_at) / 8 };
        (self.seed, self.words_at) = (seed, words_at);
        Ok(())
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// How an attempt to take a [`SharedMutex`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Ours.
    Clean,
    /// Ours, but its last holder died inside; repair, then call `consistent`.
    Orphaned,
    /// Somebody alive holds it.
    Busy,
    /// Not usable any more.
    Broken,
}

/// A process-shared robust pthread mutex, one to a cache line.
#[repr(C, align(64))]
pub struct SharedMutex(UnsafeCell<libc::pthread_mutex_t>);

const _: () = assert!(size_of::<SharedMutex>() == 64);

// SAFETY: it is a process-shared mutex; every use goes through pthread calls or atomics.
unsafe impl Sync for SharedMutex {}

impl SharedMutex {
    /// Takes it if it is free.
    #[inline]
    pub fn try_take(&self) -> Taking {
        // SAFETY: the pointer is to an initialised process-shared robust mutex (checked on open).
        judge(unsafe { libc::pthread_mutex_trylock(self.0.get()) })
    }

    /// Waits for it at most `wait_ms` milliseconds.
    pub fn take_within(&self, wait_ms: u32) -> Taking {
        let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both pointers are valid for the calls; the mutex as in `try_take`.
        let code = unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut until);
            let nanos = until.tv_nsec + i64::from(wait_ms) * 1_000_000;
            until.tv_sec += nanos / 1_000_000_000;
            until.tv_nsec = nanos % 1_000_000_000;
            libc::pthread_mutex_timedlock(self.0.get(), &raw const until)
        };
        judge(code)
    }

    /// Declares the state behind an orphaned mutex repaired.
    pub fn consistent(&self) {
        // SAFETY: the caller holds the mutex; a wrong call only returns an error.
        unsafe { libc::pthread_mutex_consistent(self.0.get()) };
    }

    /// Gives it back. Only `lock::Guard` calls this, once per successful taking.
    #[inline]
    pub(crate) fn release(&self) {
        // SAFETY: the calling thread holds it; otherwise a robust mutex answers EPERM.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }

    fn init(&self) -> Result<(), OpenError> {
        // SAFETY: nobody else knows the region yet; the attribute lives through the calls.
        let code = unsafe { init_robust(self.0.get()) };
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code).into()) }
    }

    /// Whether the words that say "robust, process-shared" are those of a fresh mutex here.
    fn looks_robust(&self) -> bool {
        const N: usize = size_of::<libc::pthread_mutex_t>() / 4;
        // SAFETY: a mutex of zeros is a valid place to initialise; `[u32; N]` is no larger than it,
        // and the shared one is read as atomics.
        let (model, mine) = unsafe {
            let mut model = MaybeUninit::<libc::pthread_mutex_t>::zeroed();
            if init_robust(model.as_mut_ptr()) != 0 {
                return false;
            }
            let mine = &*self.0.get().cast::<[std::sync::atomic::AtomicU32; N]>();
            (*model.as_ptr().cast::<[u32; N]>(), mine)
        };
        model.iter().zip(mine).all(|(m, w)| *m == 0 || *m == w.load(Ordering::Relaxed))
    }
}

/// # Safety
/// `at` must be valid for writes and not in use as a mutex.
unsafe fn init_robust(at: *mut libc::pthread_mutex_t) -> i32 {
    let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    // SAFETY: `attr` is initialised by the first call and valid for the others; `at` by contract.
    unsafe {
        libc::pthread_mutexattr_init(attr.as_mut_ptr());
        libc::pthread_mutexattr_setpshared(attr.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
        libc::pthread_mutexattr_setrobust(attr.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
        let code = libc::pthread_mutex_init(at, attr.as_ptr());
        libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
        code
    }
}

#[inline]
fn judge(code: i32) -> Taking {
    match code {
        0 => Taking::Clean,
        libc::EOWNERDEAD => Taking::Orphaned,
        libc::EBUSY | libc::ETIMEDOUT => Taking::Busy,
        _ => Taking::Broken,
    }
}

/// Appends `len` bytes that start at the first of `words` to `out`. Gives up if there are fewer.
#[inline]
pub fn copy_out(words: &[AtomicU64], len: usize, out: &mut Vec<u8>) -> Option<()> {
    let words = words.get(..len.div_ceil(8))?;
    let start = out.len();
    out.reserve(words.len() * 8);
    // SAFETY: `words.len() * 8` bytes were reserved behind `start`; each is written before
    // `set_len` covers it, and `len` is not more than that.
    unsafe {
        let to = out.as_mut_ptr().add(start).cast::<u64>();
        let copied = copy_blocks(words, to);
        for (n, w) in words.iter().enumerate().skip(copied) {
            to.add(n).write_unaligned(w.load(Ordering::Relaxed));
        }
        out.set_len(start + len);
    }
    Some(())
}

/// Words that [`copy_blocks`] takes at a time: a cache line.
const BLOCK_WORDS: usize = 8;

/// Copies as many whole blocks as there are, sixteen bytes per load, and says how many words that
/// was. The words may change meanwhile, as they may between two loads; who reads a value checks the
/// sequence counter behind it.
///
/// # Safety
/// `to` has room for all of `words`.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_blocks(words: &[AtomicU64], to: *mut u64) -> usize {
    let blocks = words.len() / BLOCK_WORDS;
    if blocks == 0 {
        return 0;
    }
    // SAFETY: reads `blocks` cache lines' worth of `words` and writes as much to `to`, which the
    // caller vouches for; plain loads, in order, like the relaxed ones of single words. In
    // assembler because other processes write here, which no copy in Rust may ignore.
    unsafe {
        std::arch::asm!(
            "2:",
            "movups {a}, xmmword ptr [{from}]",
            "movups {b}, xmmword ptr [{from} + 16]",
            "movups {c}, xmmword ptr [{from} + 32]",
            "movups {d}, xmmword ptr [{from} + 48]",
            "movups xmmword ptr [{to}], {a}",
            "movups xmmword ptr [{to} + 16], {b}",
            "movups xmmword ptr [{to} + 32], {c}",
            "movups xmmword ptr [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "dec {left}",
            "jnz 2b",
            from = inout(reg) words.as_ptr() => _,
            to = inout(reg) to => _,
            left = inout(reg) blocks => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
    blocks * BLOCK_WORDS
}

/// Elsewhere single words do.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn copy_blocks(_: &[AtomicU64], _: *mut u64) -> usize {
    0
}

/// Stores `bytes` into `words`, the last word padded with zeros. Gives up if they do not fit.
#[inline]
pub fn copy_in(words: &[AtomicU64], bytes: &[u8]) -> Option<()> {
    let words = words.get(..bytes.len().div_ceil(8))?;
    let mut chunks = bytes.chunks_exact(8);
    for (w, chunk) in words.iter().zip(&mut chunks) {
        w.store(u64::from_ne_bytes(chunk.try_into().expect("eight bytes")), Ordering::Relaxed);
    }
    if let Some(last) = words.last().filter(|_| !chunks.remainder().is_empty()) {
        last.store(load_le(chunks.remainder()).to_le(), Ordering::Relaxed);
    }
    Some(())
}

/// Up to eight bytes as a little-endian number.
#[inline]
pub fn load_le(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Maps `file` read-only, refusing one whose content or size may still change.
pub(crate) fn map_sealed(file: &File) -> Result<Mmap, OpenError> {
    let want = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    if !seals(file)?.contains(want) {
        return Err(OpenError::Refused("not sealed against writing"));
    }
    // SAFETY: the seals just checked can never be taken off: the bytes are immutable and all there.
    Ok(unsafe { MmapOptions::new().map(file.as_raw_fd())? })
}

/// Takes over a descriptor that the process was born with. It is close-on-exec afterwards.
pub(crate) fn adopt(fd: RawFd) -> Result<OwnedFd, OpenError> {
    if fd <= 2 {
        return Err(OpenError::Refused("a standard stream"));
    }
    // SAFETY: borrowed for one harmless query; a number that is not open only makes it fail.
    let bits = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    if bits < 0 || !SealFlag::from_bits_truncate(bits).contains(SIZE_SEALS) {
        return Err(OpenError::Refused("not an inherited region"));
    }
    // SAFETY: it is an open memfd with a sealed size; the contract of `Bequest::take` is that the
    // environment named it to us and that this is the only taking.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// An empty memfd, close-on-exec, that can be sealed.
pub(crate) fn sealable_memfd(name: &str) -> Result<File, OpenError> {
    let name = CString::new(name).map_err(|_| OpenError::Refused("NUL in the name"))?;
    let fd = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    Ok(File::from(fd))
}

pub(crate) fn add_seals(file: &File, seals: SealFlag) -> Result<(), OpenError> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

fn seals(file: &File) -> Result<SealFlag, OpenError> {
    // A file that cannot be sealed (not a memfd) has none.
    Ok(SealFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GET_SEALS).unwrap_or(0)))
}

fn words_at(locks: usize) -> usize {
    PAGE + (locks * size_of::<SharedMutex>()).next_multiple_of(PAGE)
}

fn total_len(plan: &Plan) -> Option<usize> {
    plan.words.checked_mul(8)?.checked_next_multiple_of(PAGE)?.checked_add(words_at(plan.locks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plan() -> Plan {
        Plan { kind: 7, name: "zone-a".into(), param: 42, locks: 3, words: 1024 }
    }

    #[test]
    fn a_second_mapping_sees_the_first_ones_words() {
        let a = Region::create(plan()).unwrap();
        a.words()[1023].store(99, Ordering::Relaxed);
        let b = Region::open(a.fd().try_clone_to_owned().unwrap(), 7).unwrap();
        assert_eq!(b.plan(), a.plan());
        assert_eq!((b.seed(), b.words()[1023].load(Ordering::Relaxed)), (a.seed(), 99));
        assert_eq!(b.mutex(3).is_none(), b.mutex(2).is_some());
    }

    #[test]
    fn what_is_not_a_region_is_refused() {
        let a = Region::create(plan()).unwrap();
        assert!(Region::open(a.fd().try_clone_to_owned().unwrap(), 8).is_err(), "another kind");
        let mut junk = sealable_memfd("junk").unwrap();
        junk.write_all(&[0xab; 3 * PAGE]).unwrap();
        assert!(Region::open(junk.try_clone().unwrap().into(), 7).is_err(), "size not sealed");
        add_seals(&junk, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW).unwrap();
        assert!(Region::open(junk.into(), 7).is_err(), "no magic");
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(PAGE as u64).unwrap();
        assert!(Region::open(disk.into(), 7).is_err(), "a plain file can shrink");
    }

    #[test]
    fn a_region_cannot_be_truncated() {
        let a = Region::create(plan()).unwrap();
        assert!(a.file.set_len(PAGE as u64).is_err());
    }

    #[test]
    fn bytes_survive_the_round_trip() {
        let a = Region::create(plan()).unwrap();
        for len in [0, 1, 7, 8, 9, 64, 8191, 8192] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8 ^ 0x5a).collect();
            copy_in(a.words(), &bytes).unwrap();
            let mut back = b"-".to_vec();
            copy_out(a.words(), len, &mut back).unwrap();
            assert_eq!(&back[1..], &bytes[..]);
        }
        assert!(copy_in(a.words(), &[0; 8193]).is_none());
        assert!(copy_out(a.words(), 8193, &mut Vec::new()).is_none());
    }
}
