//! Lists of faults, which the simulated GitHub and the simulated kubelet both keep: each fault has a number, a
//! probability and perhaps a number of times. The first in the list that fits and is drawn strikes.
//!
//! Draws come from a seeded generator, so one seed and one order of events give one course.

use fastrand::Rng;

/// What a list reads and notes in each of its faults. These fields lie in the fault itself, as the control APIs take
/// and show them.
pub struct Tally<'a> {
    /// Its number.
    pub id: &'a mut u64,
    /// How often it struck.
    pub struck: &'a mut u64,
    /// From 0 to 1.
    pub probability: f64,
    /// How many times it may still strike; without it, for ever.
    pub count: &'a mut Option<u64>,
}

/// A fault that a list can keep.
pub trait Tallied: Clone {
    /// What the list reads and notes in it.
    fn tally(&mut self) -> Tally<'_>;
}

/// How probable a fault is that does not say so.
pub(crate) fn always() -> f64 {
    1.0
}

/// The list of faults.
#[derive(Debug)]
pub struct FaultList<F> {
    list: Vec<F>,
    last: u64,
}

impl<F> Default for FaultList<F> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            last: 0,
        }
    }
}

impl<F: Tallied> FaultList<F> {
    /// Adds a fault and returns its number.
    pub fn add(&mut self, mut fault: F) -> u64 {
        self.last += 1;
        let tally = fault.tally();
        (*tally.id, *tally.struck) = (self.last, 0);
        self.list.push(fault);
        self.last
    }

    /// All of them, with those that are used up.
    pub fn list(&self) -> &[F] {
        &self.list
    }

    /// Removes the one of this number, or all.
    pub fn clear(&mut self, id: Option<u64>) {
        self.list
            .retain_mut(|fault| id.is_some_and(|id| *fault.tally().id != id));
    }

    /// Draws the first fault that fits, and notes that it struck.
    pub(crate) fn strike(&mut self, rng: &mut Rng, fits: impl Fn(&F) -> bool) -> Option<F> {
        let struck = self.list.iter_mut().find_map(|fault| {
            if !fits(fault) {
                return None;
            }
            let tally = fault.tally();
            (*tally.count != Some(0) && rng.f64() < tally.probability).then_some(fault)
        })?;
        let tally = struck.tally();
        *tally.struck += 1;
        *tally.count = tally.count.map(|left| left - 1);
        Some(struck.clone())
    }
}
