-- needs: args, settings, demand, backoff, runner
--
-- Jobs: waiting <-> queued -> in_progress -> completed, and in_question while only GitHub knows.

local MISFIT_CAP = 6 -- times `misfit_hold`: 10 minutes, doubling to an hour
local SELDOM_CAP = 24 -- times `question_interval`: an hour, doubling to a day
-- what is made of what a job asks for, by the settings
local MADE_OF_IT = { 'class', 'scope', 'group', 'profile', 'labels' }
local FIELDS = { 'repo', 'attempt', 'owner_id', 'user', unpack(MADE_OF_IT) }

local function job_state(job)
  return call('HGET', 'job:' .. job .. ':info', 'state')
end

-- What became of the runner that ended early, and may have run this job: it had work where GitHub names it; where the
-- job is `queued` still it had none, and after a few of those in a row its class is held; else nothing is known.
local function judge(job, runner, queued)
  local key = 'job:' .. job .. ':info'
  local suspect = call('HGET', key, 'suspect')
  if not suspect then return end
  call('HDEL', key, 'suspect')
  local state, why = fields('runner:' .. suspect .. ':info', 'state', 'why')
  if not state then return end -- forgotten: that is a day ago
  if runner == suspect then
    succeeded(suspect, 'work')
  elseif queued then
    local first = setting('start_backoff')
    runner_failed(suspect, { 'runner', unpack(POD) }, {
      needs = 'work', delay = first, most = first * 16,
      why = "the runner's program ends before it has work (" .. (why or 'ended') .. ')',
    })
  end
  drop_probes(suspect)
end

-- GitHub's own word of a job, a webhook's or an answer's: it holds until GitHub has another, or does not keep the job
-- for so long.
local function told(job)
  heard(job)
  call('HSET', 'job:' .. job .. ':info', 'told_at', now)
end

-- How long to wait before GitHub is asked for the `times`th time about what does not change: twice as long each time.
local function seldom(times)
  return math.min(2 ^ (times - 1), SELDOM_CAP) * setting('question_interval')
end

-- Writes what is known of a job for the first time; `org` is its canonical login.
local function remember_job(job, org, of)
  local key = 'job:' .. job .. ':info'
  call('HSET', key, 'org', org)
  for _, field in ipairs(FIELDS) do
    if of[field] then call('HSET', key, field, of[field]) end
  end
  call('ZADD', 'owners:heard', now, org)
  if of.user then call('SADD', 'org:' .. org .. ':repos', string.match(of.repo, '[^/]*$')) end
  if call('ZADD', 'repos:active', now, of.repo) == 1 then call('SADD', 'repos:new', of.repo) end
end

-- Takes a job out of its queue, where it is in one.
local function unqueue(job)
  local key = 'job:' .. job .. ':info'
  local org, class = fields(key, 'org', 'class')
  call('ZREM', 'org:' .. org .. ':pending', job)
  if class and call('ZREM', 'class:' .. class .. ':queued', job) == 1 then refresh_class(class) end
end

-- Puts a job into the queues of its class and its owner.
local function enqueue(job, queued_at)
  local key = 'job:' .. job .. ':info'
  local org, class, scope, group, profile, labels, owner_id =
    fields(key, 'org', 'class', 'scope', 'group', 'profile', 'labels', 'owner_id')
  local of = { org = org, scope = scope, group = group, profile = profile, labels = labels, owner_id = owner_id }
  ensure_class(class, of)
  -- it may have been forgotten meanwhile
  if call('HEXISTS', key, 'misfits') == 1 then call('HSET', 'class:' .. class .. ':info', 'misfit', now) end
  call('ZADD', 'class:' .. class .. ':queued', queued_at, job)
  call('ZADD', 'org:' .. org .. ':pending', queued_at, job)
  refresh_class(class)
end

-- Makes a job demand. Its place in the queue is the time at which it was first accepted, also when it comes back.
local function queue(job)
  local key = 'job:' .. job .. ':info'
  local queued_at = tonumber(call('HGET', key, 'queued_at')) or args.accepted_at or now
  call('HSET', key, 'state', 'queued', 'queued_at', queued_at)
  call('HDEL', key, 'reason', 'runner', 'started_at', 'held_until', 'waits')
  judge(job, nil, true)
  enqueue(job, queued_at)
end

-- Derives anew what a job that has not begun is made of: the settings may be others, or its repository another owner's.
-- Runners stay what they are.
local function reclass(job, org, of)
  local key = 'job:' .. job .. ':info'
  local before, its_org, scope, group, profile, labels =
    fields(key, 'class', 'org', 'scope', 'group', 'profile', 'labels')
  local same = string.lower(scope) == string.lower(of.scope) and string.lower(group) == string.lower(of.group)
    and profile == of.profile and labels == of.labels
  -- also where its id is of another login: runners are made for that class already
  if same and its_org == org then return end
  local queued_at = call('ZSCORE', 'class:' .. before .. ':queued', job)
  if queued_at then unqueue(job) end
  call('HSET', key, 'org', org)
  for _, field in ipairs(MADE_OF_IT) do call('HSET', key, field, of[field]) end
  if of.owner_id then call('HSET', key, 'owner_id', of.owner_id) end
  if queued_at then enqueue(job, queued_at) end
end

-- A job that waits for an approval is no demand; GitHub is asked about it, ever more seldom.
local function wait_for_approval(job)
  unqueue(job)
  judge(job)
  local key = 'job:' .. job .. ':info'
  call('HSET', key, 'state', 'waiting', 'reason', 'GitHub holds it for an approval')
  call('HDEL', key, 'runner', 'started_at', 'held_until')
  call('ZADD', 'jobs:questions', now + seldom(call('HINCRBY', key, 'waits', 1)), job)
end

local function start(job, runner)
  unqueue(job)
  judge(job, runner)
  local key = 'job:' .. job .. ':info'
  call('HSET', key, 'state', 'in_progress', 'started_at', now)
  call('HDEL', key, 'reason', 'held_until', 'misfits', 'waits', 'unanswered', 'words')
  if runner then call('HSET', key, 'runner', runner) end
  call('ZADD', 'jobs:questions', now + setting('question_interval'), job)
end

-- Takes a job out of demand for a while: GitHub did not give it to a runner that was made for it. Asked about then, it
-- comes back.
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
  judge(job, runner)
  local key = 'job:' .. job .. ':info'
  call('ZREM', 'jobs:questions', job)
  call('HSET', key, 'state', 'completed', 'completed_at', now, 'conclusion', conclusion or 'unknown')
  if runner then call('HSET', key, 'runner', runner) end
  call('HDEL', key, 'reason', 'missing', 'rev', 'scope', 'group', 'labels', 'held_until', 'misfits', 'waits',
    'told_at', 'unreadable', 'unanswered', 'words')
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
