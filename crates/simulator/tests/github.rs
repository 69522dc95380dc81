//! The simulated GitHub over HTTP: a job's whole life, faults, and every kind of answer held against GitHub's own
//! description.
#![allow(clippy::unwrap_used)]

mod github {
    mod answers;
    mod faults;
    mod jobs;
}
mod common;
