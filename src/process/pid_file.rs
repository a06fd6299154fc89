//! The file with the master's process id.
use crate::log::{self, Os};
use crate::sys::process;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes our id, over whatever stood there.
pub fn write(path: &Path) -> Result<(), String> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{}\n", process::id()).as_bytes()));
    written.map_err(|error| failed(path, &error))
}

/// `-t`: finds out whether the file could be written, and changes nothing in it.
pub fn rehearse(path: &Path) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644);
    options.open(path).map(drop).map_err(|error| failed(path, &error))
}

/// Removes the file.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::alert!("unlink() \"{}\" failed{}", path.display(), Os(&error));
    }
}

/// Gives the file another name; false if that failed. `when` completes the log's sentence.
pub fn rename(from: &Path, to: &Path, when: &str) -> bool {
    let Err(error) = fs::rename(from, to) else { return true };
    let (from, to) = (from.display(), to.display());
    log::alert!("rename() {from} to {to} failed {when}{}", Os(&error));
    false
}

/// The id in the file. The error is nginx's sentence.
pub fn read(path: &Path) -> Result<u32, String> {
    let text = fs::read(path).map_err(|error| failed(path, &error))?;
    let text = String::from_utf8_lossy(&text);
    let digits = text.trim_end_matches(['\r', '\n']);
    let pid = digits.parse().ok().filter(|pid| (1..=i32::MAX as u32).contains(pid));
    pid.ok_or_else(|| format!("invalid PID number \"{digits}\" in \"{}\"", path.display()))
}

/// True if the file names a process that is no more: a master that was killed, whose workers may
/// still be there.
pub fn names_the_dead(path: &Path) -> bool {
    read(path).is_ok_and(|pid| !process::is_alive(pid))
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("open() \"{}\" failed{}", path.display(), Os(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_written_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        assert!(read(&path).unwrap_err().contains("failed (2: No such file or directory)"));
        rehearse(&path).unwrap();
        assert!(read(&path).unwrap_err().starts_with("invalid PID number \"\" in \""));
        write(&path).unwrap();
        assert_eq!(read(&path), Ok(process::id()));
        assert!(!names_the_dead(&path));
        fs::write(&path, "4190000\n").unwrap();
        assert!(names_the_dead(&path));
        fs::write(&path, "-1\n").unwrap();
        assert!(read(&path).is_err());
    }
}
