-- answer(job, rev, status): what GitHub said about a job in question. Stale if anything was heard of the job since it was asked.
--
-- args: job, rev, status (queued | waiting | in_progress | completed | missing), runner, runner_id, conclusion

local MISSING_LIMIT = 3 -- so often GitHub must not know the job before it is given up: a 404 can also be a right that is gone for a while

local job = args.job
local key = 'job:' .. job .. ':info'
local state, rev, org, runner_before = fields(key, 'state', 'rev', 'org', 'runner')
if not state or state == 'completed' then
  call('ZREM', 'jobs:questions', job)
  return cjson.encode({ state = state or 'ignored' })
end
if rev ~= args.rev then
  ask(job, now)
  return cjson.encode({ state = state })
end
heard(job)
local runner = believed(args.runner, org, args.runner_id) and args.runner or nil
if args.status ~= 'missing' then call('HDEL', key, 'missing') end

if (args.status == 'queued' or args.status == 'waiting') and not call('HGET', key, 'class') then
  call('ZREM', 'jobs:questions', job) -- a job of other runners' labels that one of ours had taken: theirs again
  call('DEL', key)
elseif args.status == 'queued' then
  call('ZREM', 'jobs:questions', job)
  if state ~= 'queued' then queue(job) end
elseif args.status == 'waiting' then
  wait(job)
elseif args.status == 'in_progress' then
  if state ~= 'in_progress' then start(job, args.runner) end
  if runner then busy(runner, job) end
  -- Its runner may be gone without GitHub having noticed yet: ask again soon, else only now and then.
  local gone = args.runner and not runner and call('HGET', 'runner:' .. args.runner .. ':info', 'state') == 'gone'
  call('ZADD', 'jobs:questions', now + (gone and setting('uncertain_first') or setting('question_interval')), job)
elseif args.status == 'completed' then
  complete(job, args.runner, args.conclusion)
  if runner then ending(runner, job) end
elseif args.status == 'missing' then
  local missing = call('HINCRBY', key, 'missing', 1)
  if missing >= MISSING_LIMIT then
    complete(job, nil, 'gone')
  else
    call('ZADD', 'jobs:questions', now + setting('uncertain_first') * missing, job)
  end
end
return cjson.encode({ state = job_state(job) or 'ignored' })
