//! Zones: shared memory that the configuration declares by name and size.
//!
//! A directive (`limit_req_zone`, `keyval_zone`, `upstream { zone … }`) wants a zone while the file is
//! read; `cycle` opens all wanted zones before it forks, keeping those of the running cycle by
//! name, over a binary upgrade too; from then on [`Zone::dict`] gives the memory in every process.
//!
//! **Invariant:** one name is one zone of one kind: `tag` says whose it is.
use crate::conf::{Reading, Reason, value};
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use tollbar_shm::Dict;

/// The smallest zone nginx accepts: eight pages.
pub const ZONE_MIN_BYTES: u64 = 8 * 4096;

/// One declared zone.
#[derive(Debug)]
pub struct Zone {
    /// Its name in the file.
    pub name: String,
    /// The feature that owns it: two features cannot share a name.
    pub tag: &'static str,
    size_bytes: Cell<u64>,
    dict: OnceCell<Rc<Dict>>,
    handle: Arc<OnceLock<Dict>>,
}

impl Zone {
    /// Its declared size; 0 while it was only referred to.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.get()
    }

    /// The memory. Open in every process that was forked after the configuration was read.
    pub fn dict(&self) -> &Dict {
        self.dict.get().expect("the cycle opens every zone before it forks")
    }

    /// The memory, to be shared with the zone of the next cycle; `None` before it was opened.
    pub fn shared_dict(&self) -> Option<Rc<Dict>> {
        self.dict.get().cloned()
    }

    /// A handle that threads may hold, filled when the zone is opened: rustls asks that of what
    /// it keeps sessions in.
    pub fn handle(&self) -> Arc<OnceLock<Dict>> {
        self.handle.clone()
    }

    /// Gives the zone its memory; called once, by the cycle (and by tests).
    pub fn open(&self, dict: Rc<Dict>) {
        if Arc::strong_count(&self.handle) > 1
            && let Ok(fd) = dict.fd().try_clone_to_owned()
            && let Ok(second) = Dict::open(fd)
        {
            let _ = self.handle.set(second);
        }
        let opened = self.dict.set(dict);
        debug_assert!(opened.is_ok(), "a zone is opened once per cycle");
    }
}

/// All zones that a configuration wants, in the order of their first naming; on the reading's
/// shelf.
#[derive(Debug, Default)]
pub struct ZoneTable {
    zones: Vec<Rc<Zone>>,
}

impl ZoneTable {
    /// Finds or declares zone `name` for `tag`. `size_bytes` is `None` for a mere reference.
    ///
    /// Errors: nginx's, for a second size and for a name that belongs to another feature.
    pub fn want(
        &mut self,
        name: &str,
        tag: &'static str,
        size_bytes: Option<u64>,
    ) -> Result<Rc<Zone>, Reason> {
        let known = self.zones.iter().find(|zone| zone.name == name).cloned();
        let zone = known.unwrap_or_else(|| {
            let zone = Rc::new(Zone {
                name: name.to_owned(),
                tag,
                size_bytes: Cell::new(0),
                dict: OnceCell::new(),
                handle: Arc::default(),
            });
            self.zones.push(zone.clone());
            zone
        });
        if zone.tag != tag {
            return Err(Reason::says(format!(
                "the shared memory zone \"{name}\" is already declared for a different use"
            )));
        }
        if let Some(size) = size_bytes {
            let before = zone.size_bytes.replace(size);
            if before != 0 && before != size {
                return Err(Reason::says(format!(
                    "the size {size} of shared memory zone \"{name}\" conflicts with already \
                     declared size {before}"
                )));
            }
        }
        Ok(zone)
    }

    /// Every zone, after reading: one that was only referred to is nginx's "zero size" error.
    pub fn finish(self) -> Result<Vec<Rc<Zone>>, String> {
        match self.zones.iter().find(|zone| zone.size_bytes() == 0) {
            Some(zone) => Err(format!("zero size shared memory zone \"{}\"", zone.name)),
            None => Ok(self.zones),
        }
    }
}

/// Reads `name:size` (`one:10m`) of a zone parameter.
///
/// Errors: `invalid zone size "…"`, `zone "…" is too small`, in nginx's words.
pub fn zone_name_and_size(text: &str) -> Result<(&str, u64), Reason> {
    let bad = || Reason::says(format!("invalid zone size \"{text}\""));
    let (name, size) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    let size_bytes = value::size(size).ok_or_else(bad)?;
    if size_bytes < ZONE_MIN_BYTES {
        return Err(Reason::says(format!("zone \"{text}\" is too small")));
    }
    Ok((name, size_bytes))
}

/// Declares `name:size` for `tag` in the pass.
pub fn declare_zone(r: &mut Reading, text: &str, tag: &'static str) -> Result<Rc<Zone>, Reason> {
    let (name, size_bytes) = zone_name_and_size(text)?;
    r.shelf.of::<ZoneTable>().want(name, tag, Some(size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_zone_of_one_kind() {
        let mut table = ZoneTable::default();
        let a = table.want("one", "limit_req", Some(1 << 20)).unwrap();
        let b = table.want("one", "limit_req", None).unwrap();
        assert!(Rc::ptr_eq(&a, &b));
        assert!(table.want("one", "keyval", None).is_err());
        assert!(table.want("one", "limit_req", Some(2 << 20)).is_err());
        table.want("two", "keyval", None).unwrap();
        assert_eq!(table.finish().unwrap_err(), "zero size shared memory zone \"two\"");
    }

    #[test]
    fn sizes() {
        assert_eq!(zone_name_and_size("a:32k"), Ok(("a", 32768)));
        for bad in ["a", ":1m", "a:", "a:x", "a:1k"] {
            assert!(zone_name_and_size(bad).is_err(), "{bad}");
        }
    }
}
