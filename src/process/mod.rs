//! The process tree: master, worker, privileged process, helper, signals, upgrade.
