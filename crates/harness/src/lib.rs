//! The whole system on one machine ([`stack`]), and what is played on it: [`demo`], [`mod@bench`], [`brakes`] and
//! [`chaos`].
//!
//! Integration tests stand on it as a library; `make demo` and its like run the binary `jit-harness`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod brakes;
pub mod chaos;
pub mod demo;
pub mod stack;
