#!/usr/bin/env python3
"""Takes one rule at a time out of the ledger's scripts, and sees that a test fails without it: `make mutants`, or mutants.py WORD...
for those rules alone whose names, or whose scripts' names, hold one of the words.

Each mutant names the rule, the script, the text that is the rule, and what is left in its place. The tests run on a copy of the committed
tree, so nothing here is changed. A mutant that no test kills ends the run with an error, and so does one whose text is not there any more.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"
LUA = "crates/core/src/ledger/lua/"

MUTANTS = [
    ("a step checks its fence", "ops/provision.lua", "or fence ~= args.fence or", "or"),
    ("a failure checks its fence", "ops/fail.lua", "if fence ~= args.fence or state == 'gone'", "if state == 'gone'"),
    ("a removal moves the fence on", "prelude/runner.lua", "  call('HINCRBY', key, 'fence', 1)\n", ""),
    ("a reservation is claimed once", "ops/provision.lua", "(claimed_at and not again)", "false"),
    ("a claim comes again with its number alone", "ops/provision.lua", " and claim == args.claim", ""),
    ("and from its own worker alone", "ops/provision.lua", " and worker == args.worker", ""),
    ("the epoch gate: another Redis, or its data of another run", "prelude/gate.lua", "if epoch and its_run == run_id then", "epoch = epoch or '1'\nif true then"),
    ("the epoch gate: data restored in place", "ops/admit.lua", "call('HDEL', 'ledger:meta', 'run_id')", "call('HDEL', 'ledger:meta', 'none')"),
    ("the epoch gate: what is on its way", "ops/reconcile.lua", "return gate.lost_at + (nothing and 0 or args.in_flight)", "return gate.lost_at"),
    ("the epoch gate: a list from before the loss", "ops/reconcile.lua", "if args.began < settled(gate) then", "if now < settled(gate) then"),
    ("the epoch gate: a clock that was ahead", "prelude/gate.lua", " or lost_at > now", ""),
    ("the epoch gate: another run, another loss", "prelude/gate.lua", " or lost_run_id ~= run_id", ""),
    ("the epoch gate: a claim while it is closed", "ops/provision.lua", "if not look_at_gate().open then", "if false then"),
    ("the epoch gate: what nobody has claimed is given back", "ops/reconcile.lua", "and not gate.open and args.began >= settled(gate) then", "and false then"),
    ("and no sooner than what is on its way", "ops/reconcile.lua", " and args.began >= settled(gate) then", " then"),
    ("a reservation whose pod is there", "ops/reconcile.lua", "if state == 'reserved' then call('HSETNX'", "if state == 'never' then call('HSETNX'"),
    ("a new epoch is later than any that was seen", "ops/reconcile.lua", "if gate.epoch then seconds = math.max(seconds, tonumber(gate.epoch, 36) + 1) end", ""),
    ("the deadline sweep", "ops/due.lua", "    if why then begin_removal(name, why) end\n", ""),
    ("the tombstone", "prelude/job.lua", "  call('PEXPIRE', key, ttl > 0 and ttl or GONE_TTL_MS)", "  call('DEL', key)"),
    ("the tombstone is final", "ops/event.lua", "if state == 'completed' and not given_up then\n", "if false then\n"),
    ("the tombstone expires", "prelude/job.lua", "  call('PEXPIRE', key, ttl > 0 and ttl or GONE_TTL_MS)", "  local _ = ttl"),
    ("an event of an earlier attempt is late", "ops/event.lua", "if attempts < 0 then return", "if false then return"),
    ("the limit of an organization", "prelude/demand.lua", "if running < limit and maximum > 0", "if maximum > 0"),
    ("the maximum of the whole", "ops/admit.lua", "elseif call('SCARD', 'runners:live') >= maximum then", "elseif false then"),
    ("no more runners than jobs", "prelude/demand.lua", "  if wants > idle then", "  if wants > 0 then"),
    ("surplus waits for its grace", "ops/admit.lua", "if since + setting('surplus_grace') <= now or full or org_full", "if true"),
    ("a create in flight keeps its slot", "ops/observed.lua", "elseif state == 'removing' and hold_until and hold_until > now then", "elseif false then"),
    ("no pod yet is no end of a reservation", "ops/observed.lua", "  if state == 'reserved' then\n    changed = false", "  if false then\n    changed = false"),
    ("a runner that went unseen questions a job", "prelude/runner.lua", "    if job then put_in_question(job,", "    if false then put_in_question(job,"),
    ("a runner deleted unused questions none", "prelude/runner.lua", "elseif github_id and not unused then", "elseif github_id then"),
    ("a registration in doubt is looked up", "prelude/runner.lua", "  call('ZADD', 'registrations:uncertain', now", "  local _ = rawequal(now"),
    ("a stale answer is not believed", "ops/answer.lua", "if rev ~= args.rev then", "if false then"),
    ("what was given up comes back by GitHub's word", "ops/event.lua", "(given_up and kind ~= 'completed')", "false"),
    ("and ends by it", "ops/event.lua", "if state == 'completed' and not given_up then", "if state == 'completed' then"),
    ("a job that may not be read is demand again", "ops/answer.lua", "  if state == 'in_question' then queue(job) end", "  if false then queue(job) end"),
    ("it is given up when GitHub has ended it", "ops/answer.lua", "  if now >= until_ms then", "  if false then"),
    ("and no sooner", "ops/answer.lua", "  if now >= until_ms then", "  if true then"),
    ("it is asked about ever more seldom", "prelude/job.lua", "math.min(2 ^ (times - 1), SELDOM_CAP)", "1"),
    ("a guess ends no runner at work", "ops/due.lua", " and conclusion ~= 'gone'", ""),
    ("an adopted runner learns its id", "prelude/runner.lua", "  if github_id then call('HSETNX'", "  if false then call('HSETNX'"),
    ("a terminating pod that is unknown counts", "ops/reconcile.lua", "  else\n    local spec = seen.spec", "  elseif not seen.terminating then\n    local spec = seen.spec"),
    ("an event of another organization is not believed", "prelude/runner.lua", "if its_org ~= org and not of_repository and string.sub(scope, 1, 12) ~= 'enterprises/' then return false end", ""),
    ("a released name is not adopted again", "ops/reconcile.lua", "if state == 'gone' then", "if false then"),
    ("reconcile releases no reservation", "ops/reconcile.lua", "if state ~= 'reserved' and state ~= 'gone' and since and since < args.began and", "if state ~= 'gone' and (since == nil or since < args.began) and"),
    ("the quota's ceiling", "ops/admit.lua", "elseif fits then maximum = fits end", "end"),
    ("the ceiling rises", "prelude/demand.lua", "+ math.floor((now - since) / math.max(setting('quota_interval'), 1))", ""),
    ("a misfit's job is held back", "ops/due.lua", "  hold_back(oldest,", "  local _ = (oldest and"),
    ("it is held back longer each time", "prelude/job.lua", "math.min(2 ^ (times - 1), MISFIT_CAP)", "1"),
    ("a redelivery does not cut that short", "prelude/runner.lua", "  if held_until then at = math.max(at, tonumber(held_until)) end\n", ""),
    ("a misfit's class gets one at a time", "prelude/demand.lua", "== 1 then return math.min(queued, 1) end", "== 2 then return math.min(queued, 1) end"),
    ("until one gets work", "prelude/runner.lua", "  call('HDEL', 'class:' .. class .. ':info', 'misfit')\n", ""),
    ("where nothing starts, not all are replaced", "ops/due.lua", "if not within(last_start) and within(replaced_at) then", "if false then"),
    ("a credential holds back what it serves", "prelude/backoff.lua", "return { 'org:' .. org, credential and 'credential:' .. credential or nil }", "return { 'org:' .. org }"),
    ("a profile holds back its classes", "prelude/backoff.lua", "return { 'profile:' .. profile, 'scope:'", "return { 'scope:'"),
    ("a repository holds back its classes", "prelude/backoff.lua", "'scope:' .. string.lower(scope), 'class:' .. class }", "'class:' .. class }"),
    ("what backs off no more comes back", "prelude/backoff.lua", "call('ZADD', 'backoffs:waking', now, subject) end", "local _ = now end"),
    ("one runner at a time tries what has failed", "prelude/backoff.lua", "      call('ZADD', 'backoffs', till, subject)\n      probes", "      probes"),
    ("a probe without a verdict makes room", "prelude/backoff.lua", "      call('HDEL', subject .. ':backoff', 'probe')\n      call('ZREM', 'backoffs', subject)\n", ""),
    ("a success ends the row", "prelude/backoff.lua", " and counts then lift(subject) end", " and false then lift(subject) end"),
    ("a time that GitHub named is waited for", "prelude/backoff.lua", "local counts = probe == name or not timed or not backing_off(subject)", "local counts = true"),
    ("a success so far and no further", "prelude/backoff.lua", "LEVELS[needs] <= LEVELS[level] and", "true and"),
    ("several members speak for the whole", "prelude/backoff.lua", "if call('ZCARD', members) >= SEVERAL then", "if false then"),
    ("and one does not", "prelude/backoff.lua", "if call('ZCARD', members) >= SEVERAL then", "if true then"),
    ("a success between is a success", "prelude/backoff.lua", "  call('DEL', unpack(failing))\n", ""),
    ("what was under way is no further failure", "prelude/backoff.lua", "how.begun and how.begun <= tonumber(since) then return nil end", "false then return nil end"),
    ("what fails while it is held is no further failure", "prelude/backoff.lua", "    return nil\n  end\n  if failures", "  end\n  if failures"),
    ("a failure counts where a wider one has failed", "prelude/backoff.lua", "      at = i\n      break", "      break"),
    ("patience", "prelude/backoff.lua", "if how.patient and now - first < PATIENCE_MS then wait", "if false then wait"),
    ("which ends", "prelude/backoff.lua", "if how.patient and now - first < PATIENCE_MS then wait", "if how.patient then wait"),
    ("everything is tried every few seconds", "prelude/backoff.lua", "    if kind == 'global' then wait = math.min(wait, GLOBAL_MOST_MS) end\n", ""),
    ("the first is tried again at once", "prelude/backoff.lua", "(how.again and 2 or 1)", "1"),
    ("an end without work is judged", "prelude/job.lua", "  elseif queued then\n", "  elseif false then\n"),
    ("not one that had waited", "prelude/runner.lua", "waits and now - (tonumber(started_at or created_at) or now) < WAITED_MS", "waits"),
    ("nor one that had work", "prelude/job.lua", "  if runner == suspect then\n", "  if false then\n"),
    ("a rejected pod is a failure", "prelude/runner.lua", "if waits and rejected and not started_at then", "if false then"),
    ("what began to back off is not made", "ops/provision.lua", "if at and call('HGET'", "if false and call('HGET'"),
    ("an old image holds back its class", "ops/observed.lua", "  runner_failed(args.runner, POD,", "  local _ = (function() end)(args.runner,"),
    ("an image that cannot be pulled holds back its profile", "ops/due.lua", "detail and NO_IMAGE", "nil and NO_IMAGE"),
    ("who has several credentials does not depend on one", "ops/provision.lua", "serve(org, args.alone and args.credential or nil)", "serve(org, args.credential)"),
    ("another try is for what GitHub has not timed", "ops/limits.lua", "and not timed and not probe then", "and not probe then"),
    ("and for what nobody tries yet", "ops/limits.lua", "and not timed and not probe then", "and not timed then"),
    ("a back-off doubles", "prelude/backoff.lua", "how.delay * 2 ^ doublings", "how.delay"),
    ("a limit of GitHub's holds all calls of its account", "prelude/held.lua", "if at and at > now and", "if at and at > now + 1e15 and"),
    ("a limit that is met again cuts nothing short", "ops/calls.lua", "math.max(now + wait, held_until <= now + MOST_HELD_MS and held_until or 0)", "now + wait"),
    ("a credential that is refused is tried ever more seldom", "ops/calls.lua", "REFUSED_MS * 2 ^ math.min(call('HINCRBY', key, 'late', 1), 10)", "REFUSED_MS"),
    ("after a hold one call goes first", "ops/calls.lua", "if probe and tonumber(probe) > now then", "if false then"),
    ("an hour that is used up holds", "ops/calls.lua", "and tonumber(remaining) <= (tonumber(spent) or 0) then", "and false then"),
    ("so many calls at once", "ops/calls.lua", "if call('ZCARD', under_way) >= args.at_once then", "if false then"),
    ("a dead worker's calls end", "ops/calls.lua", "  call('ZREMRANGEBYSCORE', under_way, '-inf', now)\n", ""),
    ("points of a minute", "ops/calls.lua", "  if over then return (over + MINUTE) * 1000 end", ""),
    ("what GitHub holds back is not handed out", "ops/due.lua", "  if not till then return nil end", "  if true then return nil end"),
    ("a new credential lifts what holds", "ops/budget.lua", "do call('DEL', 'credential:' .. account .. ':limited') end", "do end"),
    ("the registrations of a scope", "ops/budget.lua", "  hold('registrations', room(registrations, args.registrations, args.registrations_ms))\n", ""),
    ("the points of a credential", "ops/budget.lua", "  hold('points', room(points, args.posts, args.posts_ms))\n", ""),
    ("what Redis noted ahead of its clock counts as of now", "ops/budget.lua", "do call('ZADD', key, now, member) end", "do local _ = member end"),
    ("a share of the hour is kept for removals", "ops/budget.lua", "left <= math.ceil(limit * args.reserve)", "left <= 0"),
    ("what was handed out counts until GitHub speaks", "ops/budget.lua", "tonumber(remaining) - (tonumber(spent) or 0), reset", "tonumber(remaining), reset"),
    ("a window that is over says nothing", "ops/budget.lua", "if not reset or reset <= now or reset", "if not reset or reset"),
    ("words of one window that overtake each other", "ops/budget.lua", "    remaining = math.min(remaining, tonumber(known_remaining))\n", ""),
    ("what is held gets no budget", "ops/budget.lua", "  if till then return cjson.encode({ wait = till - now, over = 'held', why = why }) end\n", ""),
    ("a registration counts from its answer", "ops/budget.lua", "if args.sent and most > 0 then note(key, span)", "if args.sent then local _ = key"),
    ("one that was not sent counts not", "ops/budget.lua", "elseif not args.sent then call('ZREM', key, args.runner) end", "end"),
    ("half of the hour is kept from optional calls", "ops/budget.lua", "left - args.calls < limit / 2", "left < args.calls"),
    ("optional calls keep to their number", "ops/budget.lua", "if spent + calls > args.calls_per_hour and not unlimited then", "if false then"),
    ("but where there is no limit", "ops/budget.lua", "calls > args.calls_per_hour and not unlimited then", "calls > args.calls_per_hour then"),
    ("and to that of a minute", "ops/budget.lua", "if of_minute + args.calls > args.calls_per_minute then", "if false then"),
    ("what GitHub does not count is given back", "ops/budget.lua", "> 0 then call('HINCRBY', key, minute, -1) end", "> 0 then local _ = key end"),
    ("a new credential begins with no hour", "ops/budget.lua", "  call('DEL', rate, points)\n", ""),
    ("and no back-off", "ops/budget.lua", "  lift('credential:' .. args.credential)\n", ""),
    ("an organization has one spelling", "ops/limits.lua", "  if login then return login end\n", ""),
    ("an operator's spelling counts until GitHub's is known", "ops/limits.lua", "standing[string.lower(spelt)] = spelt", "standing[spelt] = spelt"),
    ("a limit takes effect at once", "ops/limits.lua", "call('HDEL', 'org_limits', org) end\n  refresh_org(org)", "call('HDEL', 'org_limits', org) end"),
    ("a limit that is taken back is the default's", "ops/limits.lua", "else call('HDEL', 'org_limits', org) end", "end"),
    ("the limit before is told", "ops/limits.lua", "previous[i] = limit_of(pair[1])", "previous[i] = pair[2]"),
    ("a pause takes effect at once", "ops/limits.lua", "    call('ZREM', 'backoffs', 'pause:' .. org)\n  end\n  refresh_org(org)", "    call('ZREM', 'backoffs', 'pause:' .. org)\n  end"),
    ("a pause ends at its time", "ops/limits.lua", "if args.pause.until_ms then\n    call('ZADD'", "if false then\n    call('ZADD'"),
    ("a pause without an end has none of the one before", "ops/limits.lua", "  else\n    call('ZREM', 'backoffs', 'pause:' .. org)\n  end", "  end"),
    ("a pause is taken back", "ops/limits.lua", "  call('HDEL', 'orgs:paused', org)\n", ""),
    ("and takes effect at once", "ops/limits.lua", "  call('ZREM', 'backoffs', 'pause:' .. org)\n  refresh_org(org)", "  call('ZREM', 'backoffs', 'pause:' .. org)"),
    ("another configuration counts up", "ops/configure.lua", "  call('HINCRBY', 'ledger:meta', 'generation', 1)\n", ""),
    ("its limits are reckoned with", "ops/configure.lua", "  begin_recount() -- limits may be others: admissions go on with it\n  recount()\n", ""),
    ("the same configuration changes nothing", "ops/configure.lua", "if changed then", "if true then"),
    ("a slice of recovery is one worker's", "ops/recovery.lua", "if holder and holder ~= args.worker and alive then", "if false then"),
    ("but a dead worker's", "ops/recovery.lua", "holder ~= args.worker and alive then", "holder ~= args.worker then"),
    ("and its own", "ops/recovery.lua", "holder and holder ~= args.worker and alive", "holder and alive"),
    ("recovery waits for the first reconcile", "ops/recovery.lua", "  if not epoch then return { open = false } end\n", "  epoch = epoch or '1'\n"),
    ("lost data begins the search anew", "ops/recovery.lua", "if call('HGET', STATE, 'epoch') ~= epoch or call(", "if call("),
    ("and its lists", "ops/recovery.lua", "if call('HGET', mark, 'epoch') ~= epoch then", "if false then"),
    ("the walk has an end", "ops/recovery.lua", "  if args.cursor == '0' then call('HDEL', STATE, 'walk_whole') end\n", ""),
    ("a repository of which nothing is heard is forgotten", "ops/recovery.lua", "  prune('repos:active', FORGET_REPO_MS)\n", ""),
    ("with all that is kept about it", "ops/recovery.lua", "        call('HDEL', 'repos:runs', item)\n", ""),
    ("accounts take turns", "ops/recovery.lua", "  for _, account in ipairs(accounts) do call('ZADD', ACCOUNTS, now, account) end\n", ""),
    ("one without budget waits for it", "ops/recovery.lua", "call('ZADD', ACCOUNTS, math.max(args.not_before, now), args.account)", "call('ZADD', ACCOUNTS, now, args.account)"),
    ("one without work has no turn", "ops/recovery.lua", "  if any == 0 then\n", "  if false then\n"),
    ("who was never visited comes first, the newest of them", "ops/recovery.lua", "if one.round == 'repos' then at =", "if false then at ="),
    ("the longest time between two looks counts", "ops/recovery.lua", "math.max(tonumber(last) or 0, now - at)", "now - at"),
    ("the pace tells how long the rest takes", "ops/recovery.lua", "math.max(visited, 1)", "1"),
    ("urgent is for an hour", "ops/recovery.lua", "behind and now - epoch_at < URGENT_MS or false", "behind or false"),
    ("a list does not overrule a tombstone", "ops/recovery.lua", "return attempt and found.attempt and tonumber(found.attempt) > tonumber(attempt)", "return true"),
    ("but an attempt that came after it", "ops/recovery.lua", "return attempt and found.attempt and tonumber(found.attempt) > tonumber(attempt)", "return false"),
    ("and a guess of ours", "ops/recovery.lua", "    if conclusion == 'gone' then\n", "    if false then\n"),
    ("a job that a list calls queued and we at work is asked about", "ops/recovery.lua", "    if state == 'in_progress' then ask(found.job, now) end", "   "),
    ("a job that waits here is queued", "ops/recovery.lua", "return not state or state == 'waiting'", "return not state"),
    ("others' jobs are not ours", "ops/recovery.lua", "if not state then return live and true or found.ours end", "if not state then return true end"),
    ("an idle runner learns that it works", "ops/recovery.lua", " or (live and not call('HGET', 'runner:' .. found.runner .. ':info', 'running_job'))", ""),
    ("what is on its way is not unknown", "ops/recovery.lua", "backlog = call('XLEN', 'jit:events') > BACKLOG", "backlog = false"),
    ("a push of the future was now", "ops/recovery.lua", "local at = math.min(repo.at, now)", "local at = repo.at"),
    ("a repository without a push for long is not taken up", "ops/recovery.lua", "if at > now - FORGET_REPO_MS then", "if true then"),
    ("a live runner is no stray", "ops/recovery.lua", "if call('SISMEMBER', 'runners:live', runner.name) == 1 then", "if false then"),
    ("a stray was seen so twice", "ops/recovery.lua", "elseif first and now - first >= args.confirm then", "elseif first then"),
    ("and not online between", "ops/recovery.lua", "  for _, runner in ipairs(args.cleared or {}) do call('ZREM', 'strays:seen', member(runner)) end\n", ""),
    ("a delivery that has succeeded is not repeated", "ops/recovery.lua", "if news and not settled and", "if news and"),
    ("nor one that the list tells of again", "ops/recovery.lua", "if news and not settled and", "if not settled and"),
    ("nor for ever", "ops/recovery.lua", "if news and not settled and (tonumber(tries) or 0) < args.most then", "if news and not settled then"),
    ("one that fails again waits", "ops/recovery.lua", "if not_before and tonumber(not_before) > now then", "if false then"),
    ("ever longer", "ops/recovery.lua", "60000 * 2 ^ (tries - 1)", "60000"),
    ("until the receiver answers", "ops/recovery.lua", "    if call('EXISTS', key) == 1 then call('ZADD', failed, priority(key), guid) end\n", ""),
    ("queued jobs' deliveries go first", "ops/recovery.lua", "(action == 'queued' and 4e12 or 0)", "0"),
    ("a repetition that was refused is tried again", "ops/recovery.lua", "    elseif tries < args.most then\n", "    elseif false then\n"),
    ("but not for ever", "ops/recovery.lua", "    elseif tries < args.most then\n", "    else\n"),
    ("what GitHub has forgotten is settled", "ops/recovery.lua", "  if args.forgotten then\n    call('HSET', key, 'settled', 1)\n", "  if args.forgotten then\n"),
    ("a late word renames nobody", "prelude/rename.lua", "  if since and at < since then return login end\n", ""),
    ("one id at one time is no new name", "prelude/rename.lua", "if since and at == since then return known(org) end", "if false then return known(org) end"),
    ("a login that another takes is that owner's", "prelude/rename.lua", "  if holder and holder ~= id then\n", "  if false then\n"),
    ("the runners of a renamed owner go with it", "prelude/rename.lua", "    call('HSET', key, 'org', new, 'scope', scope_at(call('HGET', key, 'scope'), old, new))\n", ""),
    ("and its limit", "prelude/rename.lua", "  carry('orgs:served', old, new)\n  carry_limit(old, new)\n", "  carry('orgs:served', old, new)\n"),
    ("and the records of its jobs", "prelude/rename.lua", "    follow_rename(key)\n    refresh_class", "    refresh_class"),
    ("a job's class is derived anew", "prelude/job.lua", "  if same and its_org == org then return end", "  if true then return end"),
    ("a silent owner is forgotten", "prelude/demand.lua", "else forget(org) end", "end"),
    ("but for one that has something", "prelude/demand.lua", "  if call('EXISTS', 'org:' .. org .. ':pending', 'org:' .. org .. ':runners') > 0 then return true end\n", ""),
    ("whoever looks elsewhere frees nobody", "ops/reconcile.lua", " and is_at(key, args.here)", ""),
    ("nor ends anybody", "ops/due.lua", "elseif removing and here then", "elseif removing then"),
    ("a place is the same without its uid", "prelude/runner.lua", " or string.sub(place, 1, #here + 1) == here .. '/'", ""),
    ("a clock that was set back is noticed", "ops/clock.lua", "local was_ahead = before and tonumber(before) - now > SET_BACK_MS", "local was_ahead = false"),
    ("a wait that began ahead begins now", "ops/clock.lua", "if since and since > now then", "if false then"),
    ("a pause holds", "prelude/demand.lua", " and call('HEXISTS', 'orgs:paused', org) == 0", ""),
]


def main() -> int:
    shutil.rmtree(COPY / "tree", ignore_errors=True)
    (COPY / "tree").mkdir(parents=True)
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-xC", COPY / "tree"], input=archive, check=True)
    read_at_run_time(COPY / "tree" / "crates/core/src/ledger/scripts.rs")
    survivors = []
    mutants = [mutant for mutant in MUTANTS if len(sys.argv) == 1 or any(word in mutant[0] or word in mutant[1] for word in sys.argv[1:])]
    for rule, script, text, instead in mutants:
        path = COPY / "tree" / LUA / script
        whole = path.read_text()
        if text not in whole:
            print(f"STALE     {rule}: its text is not in {script} any more", flush=True)
            survivors.append(rule)
            continue
        path.write_text(whole.replace(text, instead, 1))
        failed, loads = tests()
        path.write_text(whole)
        if not loads:
            print(f"BROKEN    {rule}: the script that is left does not load", flush=True)
            survivors.append(rule)
            continue
        print(f"{'killed' if failed else 'SURVIVED':9} {rule}" + (f"   by {', '.join(failed[:3])}" + (f" and {len(failed) - 3} more" if len(failed) > 3 else "") if failed else ""), flush=True)
        if not failed:
            survivors.append(rule)
    print(f"{len(mutants)} mutants, {len(mutants) - len(survivors)} killed")
    return 1 if survivors else 0


def read_at_run_time(scripts: pathlib.Path) -> None:
    """In the copy, the programs read the scripts when they run, so that a mutant costs no build."""
    text = scripts.read_text()
    read = r'&*std::fs::read_to_string(format!("{}/src/ledger/{}", env!("CARGO_MANIFEST_DIR"), \1)).expect("a script").leak()'
    text, times = re.subn(r"include_str!\(((?:[^()]|\([^()]*\))*)\)", read, text)
    if times < 2:
        sys.exit(f"{scripts.name} puts the scripts together in another way: write read_at_run_time anew")
    scripts.write_text(text)


def tests() -> tuple[list[str], bool]:
    """Names of the tests that fail, and whether the scripts load: the stories first, and the property test where they all pass."""
    stories = ["ledger", "rules", "brakes", "absence", "budget", "calls", "recovery", "configuration", "identity", "places", "clock", "gate"]
    build(stories + ["properties"])
    for names, minutes in ((stories, 2), (["properties"], 15)):
        run = cargo_test(names)
        try:
            out, errors = run.communicate(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            return ["one that does not end any more"], True
        failed = sorted(set(re.findall(r"^    (\w+)$", out, re.M)))
        if failed:
            return failed, "Error compiling script" not in out
        if run.returncode != 0:
            sys.exit(f"the tests do not run:\n{errors[-2000:]}")
    return [], True


def build(names: list[str]) -> None:
    run = cargo_test(names, "--no-run")
    errors = run.communicate()[1]
    if run.returncode != 0:
        sys.exit(f"the tests do not build:\n{errors[-2000:]}")


def cargo_test(names: list[str], *more: str) -> subprocess.Popen[str]:
    """Starts these tests on the copy, in a process group of their own."""
    return subprocess.Popen(
        ["cargo", "test", "--quiet", "-p", "jit-core", *(word for name in names for word in ("--test", name)), "--no-fail-fast", *more],
        cwd=COPY / "tree", env={**os.environ, "CARGO_TARGET_DIR": str(COPY / "build"), "PROPTEST_MAX_SHRINK_ITERS": "0"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )


if __name__ == "__main__":
    sys.exit(main())
