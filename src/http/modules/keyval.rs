//! `keyval`: a variable whose value is looked up in a shared dict, per request and without a lock.
//!
//! Who fills the dict is not its business: a feed of the `agent` block, or a Lua program.

use crate::conf::*;
use crate::event::zone_name_and_size;
use crate::http::keyval::{KeyvalZones, Match};
use crate::http::variable::name_of;
use crate::http::{HttpModule, Merging, Request, Template, VariableTable};
use crate::sys;
use std::rc::Rc;

/// The module.
pub struct Keyval;

impl HttpModule for Keyval {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    const MAIN: &'static [Directive<()>] = &[
        d("keyval_zone", HTTP, call(at_least(1), |_, r| read_zone(r))),
        d("keyval", HTTP, call(exactly(3), |_, r| read_keyval(r))),
    ];

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }
}

fn read_zone(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let (mut zone, mut matching, mut timeout) = (None, Match::String, None);
    for arg in &args {
        let invalid = || Reason::InvalidParameter(arg.clone());
        match arg.split_once('=').ok_or_else(invalid)? {
            ("zone", text) => zone = Some(zone_name_and_size(text)?),
            ("timeout", text) => timeout = Some(value::milliseconds(text).ok_or_else(invalid)?),
            ("type", "string") => matching = Match::String,
            ("type", "ip") => matching = Match::Ip,
            ("type", "prefix") => matching = Match::Prefix,
            ("state" | "sync", _) => {
                return Err(Reason::says(format!("\"{arg}\" of \"keyval_zone\" is not supported")));
            }
            _ => return Err(invalid()),
        }
    }
    let (name, size_bytes) =
        zone.ok_or_else(|| Reason::says("\"keyval_zone\" must have \"zone\" parameter"))?;
    KeyvalZones::declare(r, name, size_bytes, matching, timeout)
}

fn read_keyval(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let key = Template::parse(&args[0], r)?;
    let name = name_of(&args[1])?;
    let Some(zone) = args[2].strip_prefix("zone=").filter(|n| !n.is_empty()) else {
        return Err(Reason::InvalidParameter(args[2].clone()));
    };
    let zone = KeyvalZones::refer(r, zone)?;
    let rule = Rc::new(move |r: &Request, out: &mut Vec<u8>| {
        zone.look_up(&key.value(r), sys::time::unix_ms(), out)
    });
    r.shelf.of::<VariableTable>().compute(name, false, rule)?;
    Ok(())
}
