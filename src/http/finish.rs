//! The end of a request: the log phase.

use super::Request;

/// Lets every log handler of the request's place see it.
pub fn log(r: &Request) {
    let location = r.place.location.clone();
    for handler in location.pipeline.loggers() {
        handler(r);
    }
}
