//! Files: open, facts, read, copies in memory, temporary files, replacing.
//!
//! Opening never hangs on a FIFO (`O_NONBLOCK`), and every descriptor is close-on-exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, SealFlag};
use nix::fcntl::{fcntl, openat, openat2};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::socket::retry;

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Directory,
    Link,
    /// A device, FIFO or socket.
    Other,
}

/// What the file system says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Last modification, seconds since 1970.
    pub modified: i64,
    pub modified_ns: u32,
    /// Together with `device`: which file it is.
    pub inode: u64,
    pub device: u64,
    /// Permission bits.
    pub mode: u32,
    pub owner: u32,
    /// 512-byte blocks on the disk.
    pub blocks: u64,
}

impl Facts {
    fn from_os(stat: &FileStat) -> Facts {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        Facts {
            kind,
            size: stat.st_size as u64,
            modified: stat.st_mtime,
            modified_ns: stat.st_mtime_nsec as u32,
            inode: stat.st_ino,
            device: stat.st_dev,
            mode: stat.st_mode & 0o7777,
            owner: stat.st_uid,
            blocks: stat.st_blocks as u64,
        }
    }

    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
    /// Whether both describe the same file, unchanged.
    pub fn same_content(&self, other: &Facts) -> bool {
        let of = |f: &Facts| (f.inode, f.device, f.size, f.modified, f.modified_ns);
        of(self) == of(other)
    }
}

const READING: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
const LOOKING: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// Opens for reading.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    retry(|| openat(AT_FDCWD, path, READING, Mode::empty()))
}

/// `disable_symlinks`: which symbolic links on the way to a file are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Links {
    /// `on`: all.
    Refuse,
    /// `if_not_owner`: those whose target belongs to somebody else.
    RefuseForeign,
}

/// Opens `path` for reading; links in the part below `from` are judged by `links`, those above
/// it are not. Without `from`, all are. A refused link is `ELOOP`.
pub fn open_checked(path: &Path, links: Links, from: Option<&Path>) -> io::Result<OwnedFd> {
    let inside = from.and_then(|from| Some((from, path.strip_prefix(from).ok()?)));
    let (start, rest) = match inside {
        Some((from, rest)) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            (Some(retry(|| openat(AT_FDCWD, from, flags, Mode::empty()))?), rest)
        }
        None => (None, path),
    };
    let start = start.as_ref().map_or(AT_FDCWD, |fd| fd.as_fd());
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    match links {
        Links::Refuse => {
            let how = OpenHow::new().flags(READING).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
            retry(|| openat2(start, rest, how))
        }
        Links::RefuseForeign => open_own_links(start, rest),
    }
}

/// Goes down component by component and looks who owns each link and what it leads to.
fn open_own_links(start: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let mut parts = path.components().peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let directory = here.as_ref().map_or(start, |fd| fd.as_fd());
        let name = match &part {
            Component::RootDir => Path::new("/"),
            part => Path::new(part.as_os_str()),
        };
        let last = parts.peek().is_none();
        here = Some(open_own_link(directory, name, last)?);
    }
    here.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

fn open_own_link(directory: BorrowedFd<'_>, name: &Path, last: bool) -> io::Result<OwnedFd> {
    let step = if last { READING } else { OFlag::O_PATH | OFlag::O_CLOEXEC };
    let seen = retry(|| openat(directory, name, LOOKING, Mode::empty()))?;
    let link = Facts::from_os(&retry(|| fstat(&seen))?);
    let opened = retry(|| openat(directory, name, step, Mode::empty()))?;
    if link.kind == Kind::Link && facts_of(opened.as_fd())?.owner != link.owner {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    Ok(opened)
}

/// The facts of what a path leads to.
pub fn facts(path: &Path) -> io::Result<Facts> {
    retry(|| fstatat(AT_FDCWD, path, AtFlags::empty())).map(|stat| Facts::from_os(&stat))
}

/// The facts of the path itself: a link is a link.
pub fn link_facts(path: &Path) -> io::Result<Facts> {
    retry(|| fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW))
        .map(|stat| Facts::from_os(&stat))
}

/// The facts of an open file.
pub fn facts_of(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    retry(|| fstat(fd)).map(|stat| Facts::from_os(&stat))
}

/// Whether nothing can be at that path.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG))
}

/// Whether something is there that we may not have.
pub fn is_denied(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EACCES) || is_refused_link(error)
}

/// Whether a symbolic link was in the way of `open_checked`.
pub fn is_refused_link(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMLINK | libc::ELOOP))
}

/// Reads at offset `at`; 0 is the end of the file.
pub fn read_at(fd: BorrowedFd<'_>, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    retry(|| nix::sys::uio::pread(fd, buf, at))
}

/// Opens the file behind `fd` once more, for reading past the kernel's cache (`O_DIRECT`).
pub fn open_direct(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    retry(|| openat(AT_FDCWD, Path::new(&path), READING.union(OFlag::O_DIRECT), Mode::empty()))
}

/// Reads `len` bytes at `at` from what `open_direct` opened, less if the file ends before. `align`
/// is a power of two that the device wants offsets, lengths and memory to be multiples of.
pub fn read_direct(fd: BorrowedFd<'_>, at: u64, len: usize, align: usize) -> io::Result<Vec<u8>> {
    let before = (at % align as u64) as usize;
    let whole = (before + len).next_multiple_of(align);
    let mut block = vec![0; whole + align];
    let start = block.as_ptr().align_offset(align);
    let aligned = block.get_mut(start..start + whole).ok_or(io::ErrorKind::InvalidInput)?;
    let read = read_at(fd, aligned, at - before as u64)?;
    let end = read.min(before + len);
    Ok(aligned[before.min(end)..end].to_vec())
}

/// As `read_at`, but only what is in memory: `WouldBlock` if the disk would be asked.
pub fn read_at_cached(fd: BorrowedFd<'_>, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    let piece = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`, which is borrowed for the call.
    retry(|| match unsafe { libc::preadv2(fd.as_raw_fd(), &piece, 1, at, libc::RWF_NOWAIT) } {
        -1 => Err(nix::errno::Errno::last()),
        read => Ok(read as usize),
    })
}

/// Writes all of `bytes` at offset `at`.
pub fn write_at(fd: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let to = offset(at)?;
        match retry(|| nix::sys::uio::pwrite(fd, bytes, to))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = &bytes[written..];
                at += written as u64;
            }
        }
    }
    Ok(())
}

/// A file in memory with these bytes, which nobody can change any more; `name` is for who looks at
/// the process's mappings.
pub fn sealed_copy(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(name, flags)?;
    write_at(file.as_fd(), bytes, 0)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file)
}

/// Tells the kernel that the file will be read from front to back.
pub fn read_ahead(fd: BorrowedFd<'_>) {
    advise(fd, libc::POSIX_FADV_SEQUENTIAL);
}

/// Tells the kernel that the file's content need not be kept in memory.
pub fn forget_content(fd: BorrowedFd<'_>) {
    advise(fd, libc::POSIX_FADV_DONTNEED);
}

fn advise(fd: BorrowedFd<'_>, advice: libc::c_int) {
    // SAFETY: no memory is passed. Advice that is not taken changes nothing.
    unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, advice) };
}

fn offset(at: u64) -> io::Result<i64> {
    i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// How long a temporary file keeps its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// It never has one for longer than an instant.
    Nameless,
    /// Until the `TempFile` is dropped (`client_body_in_file_only clean`).
    WhileUsed,
    /// For good (`client_body_in_file_only on`).
    ForGood,
}

/// A file below one of the `*_temp_path` directories, in nginx's layout: ten digits, and for every
/// level a directory named by so many of the last digits.
#[derive(Debug)]
pub struct TempFile {
    file: OwnedFd,
    path: PathBuf,
    keep: Keep,
    len: u64,
}

const NAMES_TRIED: u32 = 1000;
static NEXT_NAME: AtomicU32 = AtomicU32::new(0);

impl TempFile {
    /// Makes one. Missing level directories are made.
    pub fn create(directory: &Path, levels: &[u8], keep: Keep) -> io::Result<TempFile> {
        for _ in 0..NAMES_TRIED {
            let path = temporary_path(directory, levels, next_name());
            let mut opened = open_new(&path);
            if !levels.is_empty()
                && matches!(&opened, Err(e) if e.kind() == io::ErrorKind::NotFound)
            {
                path.parent().map_or(Ok(()), make_directories)?;
                opened = open_new(&path);
            }
            match opened {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
                Ok(file) if keep == Keep::Nameless => {
                    std::fs::remove_file(&path)?;
                    return Ok(TempFile { file, path, keep, len: 0 });
                }
                Ok(file) => return Ok(TempFile { file, path, keep, len: 0 }),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Takes a file over that somebody else has made, to be read.
    pub fn adopt(path: &Path, keep: Keep) -> io::Result<TempFile> {
        let file = open(path)?;
        let len = facts_of(file.as_fd())?.size;
        Ok(TempFile { file, path: path.to_owned(), keep, len })
    }

    /// The name it has, or had.
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Writes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_at(self.file.as_fd(), bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
    /// Forgets what was written; the room is used anew.
    pub fn rewind(&mut self) {
        self.len = 0;
    }
    /// Gives the file a permanent name (`proxy_store`), replacing what is there. It must have a
    /// name still. Across file systems the caller has to copy (`CrossesDevices`).
    pub fn rename(mut self, to: &Path, mode: u32) -> io::Result<()> {
        set_mode(self.fd(), mode)?;
        std::fs::rename(&self.path, to)?;
        self.keep = Keep::ForGood;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.keep == Keep::WhileUsed {
            // Gone already is what is wanted.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Numbers that differ between processes and from one start to the next.
fn next_name() -> u32 {
    let start = || std::process::id().wrapping_mul(2_654_435_761) ^ super::time::unix_ms() as u32;
    let _ = NEXT_NAME.compare_exchange(0, start() | 1, Ordering::Relaxed, Ordering::Relaxed);
    NEXT_NAME.fetch_add(1, Ordering::Relaxed)
}

fn temporary_path(directory: &Path, levels: &[u8], number: u32) -> PathBuf {
    let name = format!("{number:010}");
    let mut path = directory.to_path_buf();
    let mut end = name.len();
    for &digits in levels {
        let begin = end.saturating_sub(usize::from(digits));
        path.push(&name[begin..end]);
        end = begin;
    }
    path.push(name);
    path
}

fn open_new(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    retry(|| openat(AT_FDCWD, path, flags, Mode::S_IRUSR | Mode::S_IWUSR))
}

fn make_directories(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file's content at once: who reads it sees the old or the new, also after a crash.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}", next_name()));
    let fresh = directory.join(name);
    let written = write_durably(&fresh, bytes, mode).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written?;
    std::fs::File::open(directory)?.sync_all()
}

fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = open_new(path)?;
    set_mode(file.as_fd(), mode)?;
    write_at(file.as_fd(), bytes, 0)?;
    retry(|| nix::unistd::fsync(&file))
}

fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    retry(|| nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(mode)))
}

/// Gives a path to another user.
pub fn change_owner(path: &Path, user: u32) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(user), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refused(result: io::Result<OwnedFd>) -> bool {
        result.is_err_and(|e| e.raw_os_error() == Some(libc::ELOOP))
    }

    #[test]
    fn facts_and_bytes_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"hello").unwrap();
        let fd = open(&path).unwrap();
        let facts = facts_of(fd.as_fd()).unwrap();
        assert!(
            facts.is_file() && facts.size == 5 && facts.same_content(&super::facts(&path).unwrap())
        );
        assert!(super::facts(dir.path()).unwrap().is_directory());
        let mut buf = [0; 8];
        assert_eq!(read_at(fd.as_fd(), &mut buf, 1).unwrap(), 4);
        assert_eq!(&buf[..4], b"ello");
        match read_at_cached(fd.as_fd(), &mut buf, 0) {
            Ok(read) => assert_eq!(read, 5),
            // A file system without this ability.
            Err(error) => assert!(
                error.kind() == io::ErrorKind::WouldBlock
                    || error.raw_os_error() == Some(libc::EOPNOTSUPP)
            ),
        }
    }

    #[test]
    fn links_are_judged_below_the_start_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/f"), b"x").unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        let through = root.join("link/f");
        assert!(refused(open_checked(&through, Links::Refuse, None)));
        assert!(open_checked(&through, Links::Refuse, Some(&root.join("link"))).is_ok());
        assert!(open_checked(&root.join("real/f"), Links::Refuse, Some(&root)).is_ok());
        assert!(open_checked(&through, Links::RefuseForeign, Some(&root)).is_ok());
        assert!(open_checked(&root, Links::RefuseForeign, Some(&root)).is_ok());
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(root.join("link"), Some(12_345), None).unwrap();
            assert!(refused(open_checked(&through, Links::RefuseForeign, Some(&root))));
            let inside = Some(root.join("link"));
            assert!(open_checked(&through, Links::RefuseForeign, inside.as_deref()).is_ok());
        }
    }

    #[test]
    fn temporary_files_lie_as_nginx_lays_them() {
        let path = temporary_path(Path::new("/t"), &[1, 2], 123);
        assert_eq!(path, Path::new("/t/3/12/0000000123"));
        let dir = tempfile::tempdir().unwrap();
        let mut file = TempFile::create(dir.path(), &[1, 2], Keep::WhileUsed).unwrap();
        file.append(b"ab").unwrap();
        file.append(b"cd").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"abcd");
        let path = file.path().to_path_buf();
        drop(file);
        assert!(!path.exists());
        let nameless = TempFile::create(dir.path(), &[], Keep::Nameless).unwrap();
        assert!(!nameless.path().exists());
        let kept = TempFile::create(dir.path(), &[], Keep::WhileUsed).unwrap();
        let target = dir.path().join("stored");
        kept.rename(&target, 0o644).unwrap();
        assert_eq!(super::facts(&target).unwrap().mode, 0o644);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o640).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(super::facts(&path).unwrap().mode, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
