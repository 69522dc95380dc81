//! The transitions' Lua, put together at compile time: a shared prelude and a body each.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:ident, $body:literal) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(
                include_str!("lua/demand.lua"),
                include_str!("lua/backoff.lua"),
                include_str!("lua/held.lua"),
                include_str!("lua/runner.lua"),
                include_str!("lua/job.lua"),
                include_str!($body)
            ))
        });
    };
}

script!(EVENT, "lua/event.lua");
script!(ANSWER, "lua/answer.lua");
script!(ADMIT, "lua/admit.lua");
script!(PROVISION, "lua/provision.lua");
script!(FAIL, "lua/fail.lua");
script!(OBSERVED, "lua/observed.lua");
script!(DUE, "lua/due.lua");
script!(LIMITS, "lua/limits.lua");
script!(CONFIGURE, "lua/configure.lua");
script!(RECONCILE, "lua/reconcile.lua");
script!(RECOVERY, "lua/recovery.lua");
script!(BUDGET, "lua/budget.lua");
script!(CALLS, "lua/calls.lua");
