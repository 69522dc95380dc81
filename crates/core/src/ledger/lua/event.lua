-- queued, waiting, in_progress, completed: one event about one job, at GitHub's word. Late, doubled and reordered events settle alike.
--
-- args: kind, job, org, repo, ours, class, scope, group, profile, labels, attempt, accepted_at, runner, runner_id, conclusion

local org = learn(args.org)
local job, kind = args.job, args.kind
local state, attempt = fields('job:' .. job .. ':info', 'state', 'attempt')
local runner = believed(args.runner, org, args.runner_id) and args.runner or nil

-- A completed job comes back only as a later attempt of itself.
if state == 'completed' and (kind == 'queued' or kind == 'waiting') and attempt and args.attempt and tonumber(args.attempt) > tonumber(attempt) then
  call('DEL', 'job:' .. job .. ':info')
  state = false
end

if not state then
  -- The jobs of other runners' labels pass through an enterprise's webhook too: they leave no trace unless a runner of ours took one.
  if not args.ours and not runner then return cjson.encode({ state = 'ignored' }) end
  remember_job(job, org, args)
end
if state == 'completed' then
  if kind == 'completed' and runner then ending(runner, job) end
  return cjson.encode({ state = 'completed' })
end
heard(job)

if kind == 'queued' then
  if not state or state == 'waiting' then
    queue(job)
  elseif state == 'in_question' then
    ask(job, now) -- GitHub decides; what was asked before this word is stale
  end
elseif kind == 'waiting' then
  if not state then
    wait(job)
  elseif state == 'queued' then -- held after all, or merely late: GitHub knows
    unqueue(job)
    call('HSET', 'job:' .. job .. ':info', 'state', 'in_question', 'reason', 'GitHub said waiting after queued')
    ask(job, now)
  end
elseif kind == 'in_progress' then
  if state ~= 'in_progress' then start(job, args.runner) end
  if runner then busy(runner, job) end
elseif kind == 'completed' then
  complete(job, args.runner, args.conclusion)
  if runner then ending(runner, job) end
  -- It went before this word came: GitHub has removed its registration, there is nothing to look up.
  if args.runner and call('HGET', 'runner:' .. args.runner .. ':info', 'org') == org then call('ZREM', 'registrations:uncertain', args.runner) end
end
return cjson.encode({ state = job_state(job) or 'ignored' })
