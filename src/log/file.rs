//! Files that are appended to, and opened anew when the operator has moved them away.
//!
//! A [`LogFile`] is named while the configuration is read, opened when it is committed
//! ([`Files::open`]), and keeps its descriptor number for life: reopening puts the new file in the
//! place of the old descriptor, so threads that write meanwhile need no lock.
use crate::sys::process;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// One file, shared by everybody who logs to the same path in one configuration.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: OnceLock<File>,
    /// The Unix second in which the disk was full; 0 if it never was.
    full_at: AtomicU64,
}

impl LogFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes at the end of the file, in one `write`. Nothing is written before the file is open.
    pub fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.get() {
            Some(file) => (&*file).write(bytes),
            None => Ok(bytes.len()),
        }
    }

    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.get().map(AsFd::as_fd)
    }

    /// As [`LogFile::append`] for the error log: a failure is nobody's to hear, and on a full
    /// disk only one line a second is tried, because such a write may take its time.
    pub(super) fn append_line(&self, line: &[u8]) {
        let second = unix_seconds();
        if self.full_at.load(Relaxed) == second {
            return;
        }
        if let Err(error) = self.append(line)
            && error.kind() == io::ErrorKind::StorageFull
        {
            self.full_at.store(second, Relaxed);
        }
    }

    fn open(&self) -> io::Result<()> {
        if self.file.get().is_none() {
            let file = open_for_append(&self.path)?;
            // Only one thread commits a configuration; a second file would be dropped.
            let _ = self.file.set(file);
        }
        Ok(())
    }

    fn reopen(&self, owner: Option<u32>) -> Result<(), (&'static str, io::Error)> {
        let Some(old) = self.file.get() else { return Ok(()) };
        let new = open_for_append(&self.path).map_err(|e| ("open()", e))?;
        if let Some(uid) = owner {
            give_to(&new, uid)?;
        }
        process::put_in_place(new.into(), old.as_fd()).map_err(|e| ("dup3()", e))
    }
}

/// The files of one configuration.
#[derive(Debug, Default)]
pub struct Files {
    list: Vec<Arc<LogFile>>,
    /// Some log, of whatever place, writes to standard error, which must stay what it is.
    pub(super) keeps_stderr: bool,
}

impl Files {
    /// Names a file; the same path gives the same file.
    pub fn add(&mut self, path: &Path) -> Arc<LogFile> {
        if let Some(known) = self.list.iter().find(|file| file.path == path) {
            return known.clone();
        }
        let file = Arc::new(LogFile {
            path: path.to_owned(),
            file: OnceLock::new(),
            full_at: AtomicU64::new(0),
        });
        self.list.push(file.clone());
        file
    }

    /// True if some log of the configuration writes to standard error.
    pub fn keeps_stderr(&self) -> bool {
        self.keeps_stderr
    }

    /// Opens all, or says which could not be opened: `open() "PATH" failed (13: …)`.
    pub fn open(&self) -> Result<(), String> {
        for file in &self.list {
            file.open().map_err(|error| {
                format!("open() \"{}\" failed{}", file.path.display(), super::Os(&error))
            })?;
        }
        Ok(())
    }

    /// Opens every file anew under its name; what fails keeps its old file and is logged.
    /// The master gives the files to the workers' user (`owner`), who will open them next.
    pub fn reopen(&self, owner: Option<u32>) {
        for file in &self.list {
            if let Err((call, error)) = file.reopen(owner) {
                let (path, why) = (file.path.display(), super::Os(&error));
                super::emerg!("{call} \"{path}\" failed{why}");
            }
        }
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)
}

/// Makes `uid` the owner who may read and write, if that is not so already.
fn give_to(file: &File, uid: u32) -> Result<(), (&'static str, io::Error)> {
    let about = file.metadata().map_err(|e| ("stat()", e))?;
    // A terminal or a pipe (/dev/stdout) belongs to whoever started us.
    if !about.is_file() {
        return Ok(());
    }
    if about.uid() != uid {
        fchown(file, Some(uid), None).map_err(|e| ("chown()", e))?;
    }
    if about.mode() & 0o600 != 0o600 {
        let mode = std::fs::Permissions::from_mode(about.mode() | 0o600);
        file.set_permissions(mode).map_err(|e| ("chmod()", e))?;
    }
    Ok(())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn reopening_follows_the_name_and_keeps_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut files = Files::default();
        let file = files.add(&path);
        assert!(Arc::ptr_eq(&file, &files.add(&path)));
        file.append(b"before it is open\n").unwrap();
        files.open().unwrap();
        let number = format!("{:?}", file.as_fd());
        file.append(b"one\n").unwrap();
        fs::rename(&path, dir.path().join("a.log.1")).unwrap();
        file.append(b"two\n").unwrap();
        files.reopen(None);
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a.log.1")).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(number, format!("{:?}", file.as_fd()));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let mut files = Files::default();
        files.add(Path::new("/nonexistent/x.log"));
        assert_eq!(
            files.open().unwrap_err(),
            "open() \"/nonexistent/x.log\" failed (2: No such file or directory)"
        );
    }
}
