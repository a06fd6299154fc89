//! Samples of finished requests for the programs of the `agent` block.
//!
//! Reads no directive of its own: `sample` stands in `agent {}`. Runs in: the log.

use crate::conf::Reason;
use crate::http::sampling::Samples;
use crate::http::{HttpModule, Merging, Pipeline};
use std::rc::Rc;

/// The module.
pub struct Sampler;

impl HttpModule for Sampler {
    type Main = ();
    type RawLoc = ();
    type Loc = Samples;

    fn merge(_: (), _: &Samples, m: &mut Merging) -> Result<Samples, Reason> {
        Ok(m.shelf.of::<Samples>().clone())
    }

    fn install(samples: &Rc<Samples>, p: &mut Pipeline) {
        // The agent block may still come, so an empty list says nothing yet.
        let samples = samples.clone();
        p.log(move |r| samples.take(r));
    }
}
