//! The commands, a file each.

pub mod dead;
pub mod doctor;
pub mod limits;
pub mod lists;
pub mod orders;
pub mod status;
pub mod why;
