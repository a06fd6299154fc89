//! The process's title, as `ps` shows it.
//!
//! The kernel shows the memory in which it laid the arguments down, followed by that of the
//! environment. [`claim`] moves the environment away from there once, at start; [`set`] then
//! writes over both.
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

/// Where the kernel laid down the arguments and the environment.
#[derive(Debug)]
struct Area {
    start: usize,
    len: usize,
}

static AREA: OnceLock<Option<Area>> = OnceLock::new();

/// Takes the memory of the arguments over. `std::env::args` is garbage afterwards: collect it
/// before. To be called at start, by the only thread.
pub fn claim() {
    AREA.get_or_init(|| {
        let area = find_area(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        for (name, value) in std::env::vars_os() {
            // Names and values that the C library would refuse stay where they are, unseen.
            if !name.is_empty() && !name.as_bytes().contains(&b'=') {
                // SAFETY: the only thread (see above). The C library copies the new string.
                unsafe { std::env::set_var(name, value) };
            }
        }
        Some(area)
    });
}

/// Shows `title`; what does not fit is cut off. Nothing happens if the area was not claimed.
pub fn set(title: &str) {
    let Some(Some(area)) = AREA.get() else { return };
    let bytes = title.as_bytes();
    let shown = bytes.len().min(area.len - 1);
    let start = std::ptr::with_exposed_provenance_mut::<u8>(area.start);
    // SAFETY: the kernel mapped `len` writable bytes at `start` for this process (field 48 to 51
    // of its stat file); the environment has moved away and nobody reads the arguments there any
    // more; `shown < len`, so a zero byte ends the title.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, shown);
        std::ptr::write_bytes(start.add(shown), 0, area.len - shown);
    }
}

/// Reads `arg_start`, `arg_end`, `env_start`, `env_end` (fields 48 to 51). The environment counts
/// only if it follows the arguments, as it does unless somebody moved it.
fn find_area(stat: &str) -> Option<Area> {
    // The second field is the program's name in parentheses, and may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
    let (start, mut end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    if env_start >= end && env_start - end <= 1 && env_end > env_start {
        end = env_end;
    }
    (start != 0 && end > start + 1).then(|| Area { start, len: end - start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_read_from_the_stat_file() {
        let mut fields = vec!["0"; 52];
        (fields[47], fields[48], fields[49], fields[50]) = ("4096", "4196", "4196", "4396");
        (fields[0], fields[1]) = ("1", "(odd ) name)");
        let area = find_area(&fields.join(" ")).unwrap();
        assert_eq!((area.start, area.len), (4096, 300));
        assert!(find_area("1 (x) S 1").is_none());
        assert!(find_area(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}
