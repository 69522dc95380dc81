-- needs: args, demand
--
-- Back-offs: a failure is a fact about its subject, which is looked up when a class is picked. It is never copied
-- into what it concerns, so it costs the same however much that is.
--
-- Subjects: `class:ID`, `scope:SCOPE` (where a repository registers its own), `org:ORG`, `profile:NAME`,
-- `credential:NAME`, `global`.
--
-- `backoffs`                  ZSET  subject → until when it is held
-- `{subject}:backoff`         HASH  reason, since, until, failures in a row, first (of the row), needs (what ends the
--                                   row), timed (GitHub named the time), probe (the runner that tries it now)
-- `{subject}:failing:{needs}` ZSET  its members that failed since something of it succeeded → when
-- `{subject}:parked`          ZSET  organizations (of a credential or an organization) or classes that admission met
--                                   while it was held
-- `backoffs:waking`           ZSET  subjects that are open again, and have something put aside
--
-- When a subject's time is over its row stays until something succeeds. Until then one runner at a time tries it: its
-- probe, which holds the subject again until it has succeeded or failed, or is gone without either.

local LEVELS = { made = 1, started = 2, work = 3 } -- how far a runner has to come for a row of failures to end
local POD = { 'class', 'org', 'profile' } -- subjects of what goes wrong with a pod, narrowest first
local PATIENCE_MS = 900000 -- from the first failure of a row on, waits stay below PATIENT_MOST_MS for this time
local PATIENT_MOST_MS = 25000
local GLOBAL_MOST_MS = 4000 -- longest wait of `global`: while nothing works, something is tried every few seconds
local SEVERAL = 3 -- members that have to fail, with no success between, for the whole to fail
local FAILING_MS = 600000 -- how long a member's failure counts
local ROW_MS = 3600000 -- how long a row is kept after its last wait
local PROBE_MS = { global = 5000, credential = 5000 } -- how long a probe keeps others from trying
local PROBE_MOST_MS = 600000 -- the same, of every other kind
local WAKE = 64 -- subjects that one call wakes
local BROUGHT_BACK = 16 -- organizations and classes that one call brings back

local function backing_off(subject)
  return call('ZSCORE', 'backoffs', subject) and true or false
end

local function kind_of(subject)
  return string.match(subject, '^%a+')
end

-- Brings one organization or class back from where it was put aside.
local function unpark(subject, member)
  call('ZREM', subject .. ':parked', member)
  local kind = kind_of(subject)
  if kind == 'org' or kind == 'credential' then
    call('HDEL', 'orgs:parked', member)
    refresh_org(member)
  else
    call('HDEL', 'class:' .. member .. ':info', 'parked')
    refresh_class(member)
  end
end

-- Puts aside what admission met while `subject` is held.
local function park_org(org, subject)
  call('ZREM', 'orgs:ready', org)
  call('HSET', 'orgs:parked', org, subject)
  refresh_org(org)
end

local function park_class(org, class, subject)
  call('ZREM', 'org:' .. org .. ':classes', class)
  call('HSET', 'class:' .. class .. ':info', 'parked', subject)
  refresh_class(class)
end

-- What was put aside for it may come back.
local function open(subject)
  if call('EXISTS', subject .. ':parked') == 1 then call('ZADD', 'backoffs:waking', now, subject) end
end

-- Ends a row of failures: it works.
local function lift(subject)
  call('DEL', subject .. ':backoff')
  call('ZREM', 'backoffs', subject)
  open(subject)
end

-- Ends the waits and pauses whose time has come.
local function wake()
  for _, subject in ipairs(call('ZRANGEBYSCORE', 'backoffs', '-inf', now, 'LIMIT', 0, WAKE)) do
    call('ZREM', 'backoffs', subject)
    local org = string.match(subject, '^pause:(.*)$')
    if org then
      call('HDEL', 'orgs:paused', org)
      refresh_org(org)
    else
      open(subject)
    end
  end
end

-- Brings back a slice of what was put aside for subjects that are open again. Whether there is more.
local function bring_back()
  local left = BROUGHT_BACK
  while left > 0 do
    local subject = call('ZRANGE', 'backoffs:waking', 0, 0)[1]
    if not subject then return false end
    local members = backing_off(subject) and {} or call('ZRANGE', subject .. ':parked', 0, left - 1)
    for _, member in ipairs(members) do unpark(subject, member) end
    left = left - #members
    if #members == 0 or call('EXISTS', subject .. ':parked') == 0 then call('ZREM', 'backoffs:waking', subject) end
  end
  return call('EXISTS', 'backoffs:waking') == 1
end

-- What may hold back an organization, and what may hold back a class of it besides.
local function org_subjects(org)
  local credential = call('HGET', 'orgs:credential', org)
  return { 'org:' .. org, credential and 'credential:' .. credential or nil }
end

local function class_subjects(class)
  local scope, profile = fields('class:' .. class .. ':info', 'scope', 'profile')
  return { 'profile:' .. profile, 'scope:' .. string.lower(scope), 'class:' .. class }
end

-- The first of these that is held.
local function first_held(subjects)
  for i, at in ipairs(call('ZMSCORE', 'backoffs', unpack(subjects))) do
    if at then return subjects[i] end
  end
end

-- All that a runner's success or failure speaks for.
local function subjects_of(name)
  local org, class, scope, profile, credential =
    fields('runner:' .. name .. ':info', 'org', 'class', 'scope', 'profile', 'credential')
  local of = {
    class = 'class:' .. class, scope = 'scope:' .. string.lower(scope), org = 'org:' .. org,
    profile = 'profile:' .. profile, global = 'global',
  }
  of.credential = credential and 'credential:' .. credential or nil
  return of
end

-- A runner is the probe of each of these subjects that has failed and not succeeded since.
local function take_probes(name, subjects)
  local probes = {}
  for _, subject in ipairs(subjects) do
    local key = subject .. ':backoff'
    if call('HEXISTS', key, 'failures') == 1 then
      local till = now + (PROBE_MS[kind_of(subject)] or PROBE_MOST_MS)
      call('HSET', key, 'probe', name)
      call('PEXPIRE', key, till - now + ROW_MS)
      call('ZADD', 'backoffs', till, subject)
      probes[#probes + 1] = subject
    end
  end
  if #probes > 0 then call('HSET', 'runner:' .. name .. ':info', 'probes', cjson.encode(probes)) end
end

-- A probe ends without a verdict: another may try what it has not decided.
local function drop_probes(name)
  local key = 'runner:' .. name .. ':info'
  local probes = call('HGET', key, 'probes')
  if not probes then return end
  call('HDEL', key, 'probes')
  for _, subject in ipairs(cjson.decode(probes)) do
    if call('HGET', subject .. ':backoff', 'probe') == name then
      call('HDEL', subject .. ':backoff', 'probe')
      call('ZREM', 'backoffs', subject)
      open(subject)
    end
  end
end

-- A runner has come as far as `level`: what had failed on the way works again. A time that GitHub named is waited for
-- all the same.
local function succeeded(name, level)
  local failing = {}
  for _, subject in pairs(subjects_of(name)) do
    local needs, timed, probe = fields(subject .. ':backoff', 'needs', 'timed', 'probe')
    local counts = probe == name or not timed or not backing_off(subject)
    if needs and LEVELS[needs] <= LEVELS[level] and counts then lift(subject) end
    for needed, at in pairs(LEVELS) do
      if at <= LEVELS[level] then failing[#failing + 1] = subject .. ':failing:' .. needed end
    end
  end
  call('DEL', unpack(failing))
end

-- Counts a failure, and holds its subject back for `how.delay`, doubled with each failure in a row, up to `how.most`
-- (both ms). How long; nothing where the failure was under way when the subject was held, or before: that is no
-- further one.
local function count_failure(subject, how)
  local kind, key = kind_of(subject), subject .. ':backoff'
  if kind == 'runner' then return 0 end
  local failures, since, probe, first, needs = fields(key, 'failures', 'since', 'probe', 'first', 'needs')
  local held_until = tonumber(call('ZSCORE', 'backoffs', subject))
  if held_until and probe ~= how.runner then
    if how.timed and how.delay > held_until - now then -- a longer time that GitHub named wins
      call('HSET', key, 'reason', how.why, 'until', now + how.delay, 'timed', 1)
      call('ZADD', 'backoffs', now + how.delay, subject)
      call('PEXPIRE', key, how.delay + ROW_MS)
    end
    return nil
  end
  if failures and not held_until and how.begun and how.begun <= tonumber(since) then return nil end
  failures, first = (tonumber(failures) or 0) + 1, tonumber(first) or now
  local wait = how.delay
  if not how.timed then
    local doublings = math.min(failures - (how.again and 2 or 1), 20) -- the first may be tried again at once
    wait = doublings < 0 and 0 or math.max(how.delay, math.min(how.delay * 2 ^ doublings, how.most))
    if how.patient and now - first < PATIENCE_MS then wait = math.min(wait, PATIENT_MOST_MS) end
    if kind == 'global' then wait = math.min(wait, GLOBAL_MOST_MS) end
  end
  if not needs or LEVELS[needs] < LEVELS[how.needs] then needs = how.needs end
  call('HSET', key, 'reason', how.why, 'since', now, 'until', now + wait, 'failures', failures, 'first', first,
    'needs', needs)
  call('HDEL', key, 'probe', 'timed')
  if how.timed then call('HSET', key, 'timed', 1) end
  call('PEXPIRE', key, wait + ROW_MS)
  if wait > 0 then
    call('ZADD', 'backoffs', now + wait, subject)
  else
    call('ZREM', 'backoffs', subject)
    open(subject)
  end
  return wait
end

-- A failure, at the narrowest of `chain` that it speaks for; at a wider one where that has failed already. Where
-- several members of a wider one have failed with no success between, it is the wider one that fails, and they are free
-- of what was theirs.
--
-- how: needs (made | started | work: what ends the row), delay, most (ms), why, runner, begun (ms, of what failed),
-- timed, patient, again
local function fails(chain, how)
  local at = 1
  for i = #chain, 2, -1 do
    if call('HEXISTS', chain[i] .. ':backoff', 'failures') == 1 then
      at = i
      break
    end
  end
  local wait = count_failure(chain[at], how)
  if not wait then return 0 end
  for i = at + 1, #chain do
    local members = chain[i] .. ':failing:' .. how.needs
    call('ZADD', members, now, chain[i - 1])
    call('ZREMRANGEBYSCORE', members, '-inf', now - FAILING_MS)
    call('PEXPIRE', members, FAILING_MS)
    if call('ZCARD', members) >= SEVERAL then
      for _, member in ipairs(call('ZRANGE', members, 0, -1)) do lift(member) end
      call('DEL', members)
      -- a whole that is held may be right but for a few
      if how.needs == 'made' then how.most = math.min(how.most, PATIENT_MOST_MS) end
      how.again = nil
      wait = count_failure(chain[i], how) or wait
    end
  end
  return wait
end

-- A failure of a runner's, at the narrowest of `kinds` of its subjects.
local function runner_failed(name, kinds, how)
  local of, chain = subjects_of(name), {}
  of.runner = 'runner:' .. name
  for _, kind in ipairs(kinds) do
    chain[#chain + 1] = of[kind] or 'global' -- a release without credentials claimed it
  end
  how.runner, how.begun = name, tonumber(call('HGET', 'runner:' .. name .. ':info', 'claimed_at'))
  return fails(chain, how)
end

-- Holds a subject back for a time that GitHub named.
local function back_off(subject, wait, why)
  count_failure(subject, { needs = 'made', delay = wait, why = why, timed = true })
end
