-- Jobs: waiting <-> queued -> in_progress -> completed, and in_question while only GitHub knows. Prelude of every transition, third part.

local MISFIT_CAP = 6 -- times `misfit_hold`: 10 minutes, doubling to an hour
local FIELDS = { 'repo', 'class', 'scope', 'group', 'profile', 'labels', 'attempt' }

local function job_state(job)
  return call('HGET', 'job:' .. job .. ':info', 'state')
end

-- Writes what is known of a job for the first time; `org` is its canonical login.
local function remember_job(job, org, of)
  local key = 'job:' .. job .. ':info'
  call('HSET', key, 'org', org)
  for _, field in ipairs(FIELDS) do
    if of[field] then call('HSET', key, field, of[field]) end
  end
  if call('ZADD', 'repos:active', now, of.repo) == 1 then call('SADD', 'repos:new', of.repo) end
end

-- Takes a job out of its queue, where it is in one.
local function unqueue(job)
  local key = 'job:' .. job .. ':info'
  local org, class = fields(key, 'org', 'class')
  call('ZREM', 'org:' .. org .. ':pending', job)
  if class and call('ZREM', 'class:' .. class .. ':queued', job) == 1 then refresh_class(class) end
end

-- Makes a job demand. Its place in the queue is the time at which it was first accepted, also when it comes back.
local function queue(job)
  local key = 'job:' .. job .. ':info'
  local org, class, scope, group, profile, labels, queued_at = fields(key, 'org', 'class', 'scope', 'group', 'profile', 'labels', 'queued_at')
  queued_at = tonumber(queued_at) or args.accepted_at or now
  call('HSET', key, 'state', 'queued', 'queued_at', queued_at)
  call('HDEL', key, 'reason', 'runner', 'started_at', 'held_until')
  ensure_class(class, { org = org, scope = scope, group = group, profile = profile, labels = labels })
  if call('HEXISTS', key, 'misfits') == 1 then call('HSET', 'class:' .. class .. ':info', 'misfit', now) end -- it may have been forgotten meanwhile
  call('ZADD', 'class:' .. class .. ':queued', queued_at, job)
  call('ZADD', 'org:' .. org .. ':pending', queued_at, job)
  refresh_class(class)
end

-- A job that waits for an approval is no demand; GitHub is asked about it from time to time.
local function wait(job)
  unqueue(job)
  call('HSET', 'job:' .. job .. ':info', 'state', 'waiting', 'reason', 'GitHub holds it for an approval')
  call('HDEL', 'job:' .. job .. ':info', 'runner', 'started_at', 'held_until')
  call('ZADD', 'jobs:questions', now + setting('question_interval'), job)
end

local function start(job, runner)
  unqueue(job)
  local key = 'job:' .. job .. ':info'
  call('HSET', key, 'state', 'in_progress', 'started_at', now)
  call('HDEL', key, 'reason', 'held_until', 'misfits')
  if runner then call('HSET', key, 'runner', runner) end
  call('ZADD', 'jobs:questions', now + setting('question_interval'), job)
end

-- Takes a job out of demand for a while: GitHub did not give it to a runner that was made for it. Asked about then, it comes back.
local function hold_back(job, reason)
  local key = 'job:' .. job .. ':info'
  local times = call('HINCRBY', key, 'misfits', 1)
  local until_ms = now + math.min(2 ^ (times - 1), MISFIT_CAP) * setting('misfit_hold')
  unqueue(job)
  heard(job)
  call('HSET', key, 'state', 'in_question', 'reason', reason, 'held_until', until_ms)
  call('ZADD', 'jobs:questions', until_ms, job)
end

-- Final. What is left is a tombstone that outlives every redelivery, so that a late event cannot bring the job back.
local function complete(job, runner, conclusion)
  unqueue(job)
  local key = 'job:' .. job .. ':info'
  call('ZREM', 'jobs:questions', job)
  call('HSET', key, 'state', 'completed', 'completed_at', now, 'conclusion', conclusion or 'unknown')
  if runner then call('HSET', key, 'runner', runner) end
  call('HDEL', key, 'reason', 'missing', 'rev', 'scope', 'group', 'labels', 'held_until', 'misfits')
  local ttl = setting('tombstone_ttl')
  call('PEXPIRE', key, ttl > 0 and ttl or GONE_TTL_MS) -- a ledger that lost its configuration forgets no end either
end

-- A runner whose job is over should end by itself; if it has not by its deadline, it is removed.
local function ending(name, job)
  busy(name, job)
  local key = 'runner:' .. name .. ':info'
  local state, running = fields(key, 'state', 'running_job')
  if running ~= job then return end
  call('HSET', key, 'job_done_at', now)
  if state == 'busy' then deadline(name, now + setting('end_timeout')) end
end
