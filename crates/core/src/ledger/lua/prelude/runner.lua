-- needs: args, settings, owner, demand, backoff
--
-- Runners: reserved -> created -> busy -> removing -> gone.

-- a released name is remembered for a day, so that a late pod of that name is removed and not adopted
local GONE_TTL_MS = 86400000

local REJECTED_MS = 2000 -- the first wait after a node rejected a pod
local WAITED_MS = 120000 -- a runner that ends later than that after its start had waited for work

local function deadline(name, at)
  call('ZADD', 'runners:deadlines', at, name)
end

-- A runner is at its place. One whose place a release before did not note is at all places.
-- The last part of a place, its uid, is left out where a worker may not see it: then what is before it decides.
local function is_at(key, places)
  local place = call('HGET', key, 'place')
  if not place or not places then return true end
  for _, here in ipairs(places) do
    local within = here == place or string.sub(here, 1, #place + 1) == place .. '/'
    if within or string.sub(place, 1, #here + 1) == here .. '/' then return true end
  end
  return false
end

-- 0 to `most` ms, another for each `what` and each time: what failed together does not come again together.
local function jitter(what, most)
  local sum = 0
  for i = 1, #what do sum = sum + string.byte(what, i) end
  return (now + 7919 * sum) % (most + 1)
end

-- Asks GitHub about a job at `at`, or earlier if that was planned already; not before its time where it is held back.
local function ask(job, at)
  local held_until = call('HGET', 'job:' .. job .. ':info', 'held_until')
  if held_until then at = math.max(at, tonumber(held_until)) end
  call('ZADD', 'jobs:questions', 'LT', at, job)
end

-- Whatever is learned of a job gives it a new revision: an answer to a question asked before that is stale.
-- Revisions are never used again, so that not even the answer about an earlier attempt fits.
local function heard(job)
  call('HSET', 'job:' .. job .. ':info', 'rev', call('HINCRBY', 'ledger:meta', 'heard', 1))
end

-- Takes a job out of demand until GitHub has said what became of it.
local function put_in_question(job, reason)
  local key = 'job:' .. job .. ':info'
  heard(job)
  follow_rename(key)
  local org, class = fields(key, 'org', 'class')
  call('HSET', key, 'state', 'in_question', 'reason', reason)
  call('ZREM', 'org:' .. org .. ':pending', job)
  call('ZREM', 'class:' .. class .. ':queued', job)
  ask(job, now + setting('question_delay'))
end

-- What a runner that went leaves open: if it was registered and never seen busy, the job that asked for it (or, if that
-- one is settled, the oldest of its class) may have run on it; if it was busy, its job may have ended without a word.
-- The job in question, if any.
local function question_after(name)
  local class, job, running, github_id, unused =
    fields('runner:' .. name .. ':info', 'class', 'job', 'running_job', 'github_id', 'unused')
  if running then
    local state = call('HGET', 'job:' .. running .. ':info', 'state')
    if state == 'in_progress' then ask(running, now + setting('question_delay')) end
  elseif github_id and not unused then
    local state, its_class = fields('job:' .. job .. ':info', 'state', 'class')
    if state ~= 'queued' or its_class ~= class then
      job = call('ZRANGE', 'class:' .. class .. ':queued', 0, 0)[1]
    end
    if job then put_in_question(job, 'runner ' .. name .. ' went without having been seen busy') end
    return job
  end
end

-- Looks a registration up at GitHub in a minute, and deletes it, where it may be left over.
local function doubt_registration(name)
  local running, github_id, uncertain, deregistered, claimed_at =
    fields('runner:' .. name .. ':info', 'running_job', 'github_id', 'uncertain', 'deregistered', 'claimed_at')
  -- whoever had taken it up may have asked GitHub
  if deregistered or not (github_id or uncertain or claimed_at) then return end
  -- GitHub removes it itself after its job; one that was lost over its job stays there, and the job has failed.
  if running and call('HGET', 'job:' .. running .. ':info', 'conclusion') == 'success' then return end
  call('ZADD', 'registrations:uncertain', now + setting('uncertain_first'), name)
end

-- Frees a runner's slot: its pod has ended, is gone, or never was. Where it is `suspect` (it ended by itself, and
-- early), the job in question tells whether it had work; until then it stays the probe of what it tries.
local function free(name, why, suspect)
  local key = 'runner:' .. name .. ':info'
  local org, class = fields(key, 'org', 'class')
  call('SREM', 'org:' .. org .. ':runners', name)
  call('SREM', 'runners:live', name)
  call('SREM', 'class:' .. class .. ':idle', name)
  call('ZREM', 'runners:deadlines', name)
  local job = question_after(name)
  if job and suspect then call('HSET', 'job:' .. job .. ':info', 'suspect', name) else drop_probes(name) end
  doubt_registration(name)
  if not call('HGET', key, 'why') then call('HSET', key, 'why', why) end
  call('HSET', key, 'state', 'gone', 'gone_at', now)
  call('PEXPIRE', key, GONE_TTL_MS)
  mirror(org)
  refresh_class(class)
  refresh_org(org) -- its class may be gone already
end

-- Starts the one way to remove a runner. It leaves its idle set and keeps its slot; whoever still makes it loses its
-- fence. A reservation that nobody has taken up has nothing to remove: its slot is free at once.
local function begin_removal(name, why)
  local key = 'runner:' .. name .. ':info'
  local state, class, claimed_at, create_timeout = fields(key, 'state', 'class', 'claimed_at', 'create_timeout')
  if not state or state == 'removing' or state == 'gone' then return false end
  call('HINCRBY', key, 'fence', 1)
  call('HSET', key, 'why', why)
  if state == 'reserved' and not claimed_at then
    free(name, why)
    return true
  end
  call('HSET', key, 'state', 'removing', 'removing_at', now)
  if state == 'reserved' then -- a create may be in flight: keep the slot for twice its time-out
    call('HSET', key, 'hold_until', now + 2 * (tonumber(create_timeout) or 0))
  end
  call('SREM', 'class:' .. class .. ':idle', name)
  drop_probes(name)
  deadline(name, now)
  refresh_class(class)
  return true
end

-- Whether an event means the runner that it names: of this organization, with this GitHub id where one is known.
local function meant(name, org, github_id)
  local its_org, scope, its_id = fields('runner:' .. name .. ':info', 'org', 'scope', 'github_id')
  if not its_org then return false end
  local of_repository = its_org == args.repo -- as a user's repository was written by a release before
  if its_org ~= org and not of_repository and string.sub(scope, 1, 12) ~= 'enterprises/' then return false end
  return not (its_id and github_id and its_id ~= github_id)
end

-- The runner that an event names, if it is ours, live and meant. GitHub's id of it is kept where none was known: of one
-- that was adopted.
local function believed(name, org, github_id)
  if not (name and call('SISMEMBER', 'runners:live', name) == 1 and meant(name, org, github_id)) then return false end
  if github_id then call('HSETNX', 'runner:' .. name .. ':info', 'github_id', github_id) end
  return true
end

-- Its program runs: it is idle from now on, and its class is one that starts. False where that was known.
local function started(name)
  local key = 'runner:' .. name .. ':info'
  if call('HSETNX', key, 'started_at', now) == 0 then return false end
  if call('HGET', key, 'state') == 'created' then deadline(name, now + setting('idle_check')) end
  succeeded(name, 'started')
  return true
end

-- GitHub says that the runner works on `job` (or, without one, merely that it works).
local function busy(name, job)
  local key = 'runner:' .. name .. ':info'
  local class, running = fields(key, 'class', 'running_job')
  if running then return end
  call('HSET', key, 'state', 'busy', 'busy_at', now)
  call('HSET', 'ledger:meta', 'last_start', now)
  call('HDEL', 'class:' .. class .. ':info', 'misfit')
  succeeded(name, 'work')
  call('SREM', 'class:' .. class .. ':idle', name)
  if job then
    call('HSET', key, 'running_job', job)
    -- its job may be over, or another's, without a word to this runner
    deadline(name, now + setting('question_interval'))
  else
    deadline(name, now + setting('busy_recheck'))
  end
  refresh_class(class)
end

-- It has ended, or is gone, by itself. One that ended before it had work is a failure: at once where its program cannot
-- have run (`rejected`: its node did not take its pod), else once GitHub has said of the job in question that it had
-- none. Not one that had waited for minutes: GitHub removes those.
local function ended(name, why, rejected)
  local key = 'runner:' .. name .. ':info'
  local state, started_at, created_at = fields(key, 'state', 'started_at', 'created_at')
  local waits = state == 'reserved' or state == 'created'
  if waits and rejected and not started_at then
    call('HSET', key, 'unused', 1)
    runner_failed(name, POD, {
      needs = 'started', delay = REJECTED_MS, most = setting('start_backoff') * 16, patient = true,
      why = 'its pod was rejected: ' .. why,
    })
  end
  free(name, why, waits and now - (tonumber(started_at or created_at) or now) < WAITED_MS)
end
