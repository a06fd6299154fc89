//! `table`: a variable whose value is looked up in a large table of networks, per request and
//! without a lock.
//!
//! Who fills it is not its business: the `table` of the `agent` block.

use crate::conf::*;
use crate::http::table::Tables;
use crate::http::variable::name_of;
use crate::http::{HttpModule, Merging, Request, Template, VariableTable};
use std::rc::Rc;

/// The module.
pub struct Table;

impl HttpModule for Table {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    const MAIN: &'static [Directive<()>] =
        &[d("table", HTTP, call(exactly(3), |_, r| read_table(r)))];

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }
}

fn read_table(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let key = Template::parse(&args[0], r)?;
    let name = name_of(&args[1])?;
    let Some(table) = args[2].strip_prefix("table=").filter(|n| !n.is_empty()) else {
        return Err(Reason::InvalidParameter(args[2].clone()));
    };
    let table = Tables::refer(r, table)?;
    let rule = Rc::new(move |r: &Request, out: &mut Vec<u8>| table.look_up(&key.value(r), out));
    r.shelf.of::<VariableTable>().compute(name, false, rule)?;
    Ok(())
}
