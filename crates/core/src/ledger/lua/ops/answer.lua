-- needs: args, settings, owner, runner, job
--
-- answer(job, rev, status): what GitHub said about a job in question, or that it did not say. Stale if anything was
-- heard of the job since it was asked.
--
-- Absence is no proof. A job is given up where GitHub shows what it would stand among, and not the job (`missing`),
-- three times in a row. Where GitHub does not show it (`unreadable`: 403, or 404 for all of it), or does not answer
-- (`unanswered`), its last word holds; a job in question is demand again, since a runner too many is removed and a job
-- too few is lost.
--
-- args: job, rev, status (queued | waiting | in_progress | completed | missing | unreadable | unanswered), runner,
-- runner_id, conclusion,
--       words (why there is no answer)

local MISSING_LIMIT = 3 -- so often GitHub must not know the job before it is given up
local UNANSWERED_LIMIT = 3 -- so often GitHub must not answer before a job in question is demand again
local UNANSWERED_MS, UNANSWERED_JITTER_MS = 20000, 5000
local HOUR_MS = 3600000
-- How long GitHub keeps a job in a state at most: a queued one for 24 to 48 hours, one that runs for 5 days, and a run,
-- with all its waiting, for 35
-- (https://docs.github.com/en/enterprise-server@3.14/actions/reference/usage-limits-for-self-hosted-runners).
local KEPT_MS = {
  queued = 48 * HOUR_MS, in_question = 48 * HOUR_MS, in_progress = 5 * 24 * HOUR_MS, waiting = 35 * 24 * HOUR_MS,
}

local job = args.job
local key = 'job:' .. job .. ':info'
follow_rename(key)
local state, rev, org, repo, told_at = fields(key, 'state', 'rev', 'org', 'repo', 'told_at')
if not state or state == 'completed' then
  call('ZREM', 'jobs:questions', job)
  return cjson.encode({ state = state or 'ignored' })
end
if rev ~= args.rev then
  ask(job, now)
  return cjson.encode({ state = state })
end

-- A job in question is demand again: nobody can tell what became of it.
local function queue_unsettled()
  call('ZREM', 'jobs:questions', job)
  if state == 'in_question' then queue(job) end
end

local function missing()
  local times = call('HINCRBY', key, 'missing', 1)
  if times >= MISSING_LIMIT then
    complete(job, nil, 'gone')
  else
    call('ZADD', 'jobs:questions', now + setting('uncertain_first') * times, job)
  end
end

-- The credential may not read it: asked about ever more seldom, and given up when GitHub has certainly ended it.
local function unreadable()
  call('HSET', key, 'words', args.words)
  call('ZADD', 'repos:unreadable', now, repo)
  call('ZREMRANGEBYSCORE', 'repos:unreadable', '-inf', now - KEPT_MS.waiting)
  if not told_at then call('HSET', key, 'told_at', now) end -- known from a release that did not note it
  local until_ms = tonumber(told_at or now) + KEPT_MS[state]
  if now >= until_ms then
    complete(job, nil, 'gone')
  else
    queue_unsettled()
    call('ZADD', 'jobs:questions', math.min(now + seldom(call('HINCRBY', key, 'unreadable', 1)), until_ms), job)
  end
end

-- GitHub is away, or limits its answers: asked again soon. What waits or runs is asked about after twice as long each
-- time.
local function unanswered()
  call('HSET', key, 'words', args.words)
  local times = call('HINCRBY', key, 'unanswered', 1)
  if times >= UNANSWERED_LIMIT and (state == 'in_question' or state == 'queued') then
    call('HDEL', key, 'unanswered')
    queue_unsettled()
  else
    local wait = UNANSWERED_MS
    if state == 'in_progress' or state == 'waiting' then
      wait = math.min(wait * 2 ^ math.min(times - 1, 20), setting('question_interval'))
    end
    call('ZADD', 'jobs:questions', now + wait + jitter(job, UNANSWERED_JITTER_MS), job)
  end
end

if args.status == 'unreadable' or args.status == 'unanswered' then
  heard(job)
  if args.status == 'unreadable' then unreadable() else unanswered() end
  return cjson.encode({ state = job_state(job) })
end

call('HDEL', key, 'unreadable', 'unanswered', 'words')
call('ZREM', 'repos:unreadable', repo)
if args.status == 'missing' then
  heard(job)
  missing()
  return cjson.encode({ state = job_state(job) })
end

told(job)
call('HDEL', key, 'missing')
local runner = believed(args.runner, org, args.runner_id) and args.runner or nil
if (args.status == 'queued' or args.status == 'waiting') and not call('HGET', key, 'class') then
  call('ZREM', 'jobs:questions', job) -- a job of other runners' labels that one of ours had taken: theirs again
  local taker = call('HGET', key, 'runner')
  local its = taker and 'runner:' .. taker .. ':info'
  if its and call('HGET', its, 'running_job') == job then call('HSET', its, 'job_done_at', now) end
  call('DEL', key)
elseif args.status == 'queued' then
  call('ZREM', 'jobs:questions', job)
  if state ~= 'queued' then queue(job) end
elseif args.status == 'waiting' then
  wait_for_approval(job)
elseif args.status == 'in_progress' then
  if state ~= 'in_progress' then start(job, args.runner) end
  if runner then busy(runner, job) end
  -- Its runner may be gone without GitHub having noticed yet: ask again soon, else only now and then.
  local gone = args.runner and not runner and call('HGET', 'runner:' .. args.runner .. ':info', 'state') == 'gone'
  call('ZADD', 'jobs:questions', now + (gone and setting('uncertain_first') or setting('question_interval')), job)
elseif args.status == 'completed' then
  complete(job, args.runner, args.conclusion)
  if runner then ending(runner, job) end
end
return cjson.encode({ state = job_state(job) or 'ignored' })
