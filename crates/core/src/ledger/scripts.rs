//! The transitions' Lua: a shared prelude and a body each, put together at compile time. A guard stands in front of
//! them: a script begins only where its user may run all of it ([`crate::store::rights`]).

use std::sync::LazyLock;

use redis::Script;

use crate::store::rights::guarded;

/// The preludes and a body.
macro_rules! text {
    ($($body:literal),+) => {
        concat!(
            include_str!("lua/owner.lua"),
            include_str!("lua/demand.lua"),
            include_str!("lua/backoff.lua"),
            include_str!("lua/held.lua"),
            include_str!("lua/runner.lua"),
            include_str!("lua/job.lua"),
            include_str!("lua/rename.lua"),
            $(include_str!($body)),+
        )
    };
}

macro_rules! script {
    ($name:ident, $($body:literal),+) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| guarded(text!($($body),+)));
    };
}

script!(EVENT, "lua/event.lua");
script!(ANSWER, "lua/answer.lua");
script!(ADMIT, "lua/gate.lua", "lua/admit.lua");
script!(PROVISION, "lua/gate.lua", "lua/provision.lua");
script!(FAIL, "lua/fail.lua");
script!(OBSERVED, "lua/observed.lua");
script!(DUE, "lua/due.lua");
script!(LIMITS, "lua/limits.lua");
script!(CONFIGURE, "lua/configure.lua");
script!(RECONCILE, "lua/gate.lua", "lua/reconcile.lua");
script!(RECOVERY, "lua/recovery.lua");
script!(BUDGET, "lua/budget.lua");
script!(CALLS, "lua/calls.lua");
script!(CLOCK, "lua/clock.lua");
pub(super) static TAKE_TICK: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/take_tick.lua")));
pub(super) static END_TICK: LazyLock<Script> = LazyLock::new(|| guarded(include_str!("lua/end_tick.lua")));
/// It changes nothing, so it needs no guard: what people are told must not depend on the right to write.
pub(super) static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(text!("lua/look.lua")));
