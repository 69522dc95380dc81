-- needs: args, owner, runner, job, rename
--
-- queued, waiting, in_progress, completed: one event about one job, at GitHub's word. Late, doubled and reordered
-- events settle alike. GitHub's word wins over a guess of ours: a job that was given up (conclusion `gone`) comes back.
--
-- args: kind, job, org, owner_id, user, at (when GitHub called the owner so), repo, ours, class, scope, group, profile,
--       labels, attempt, accepted_at, classes (what they were derived by), runner, runner_id, conclusion

local org = identify(args.org, args.owner_id, args.at)
if org ~= args.org then -- late, or in another case
  args.repo = repo_at(args.repo, args.org, org)
  if args.scope then args.scope = scope_at(args.scope, args.org, org) end
end
local job, kind = args.job, args.kind
follow_rename('job:' .. job .. ':info')
local state, attempt, class, conclusion = fields('job:' .. job .. ':info', 'state', 'attempt', 'class', 'conclusion')
local runner = believed(args.runner, org, args.runner_id) and args.runner or nil

-- Of an earlier attempt: late. Of a later one, or of a job that was given up without GitHub's word: a job that is over
-- comes back.
local attempts = attempt and args.attempt and tonumber(args.attempt) - tonumber(attempt) or 0
if attempts < 0 then return cjson.encode({ state = state }) end
local given_up = state == 'completed' and conclusion == 'gone'
local again = state == 'completed' and (attempts > 0 or (given_up and kind ~= 'completed'))

if not state or again then
  -- The jobs of other runners' labels pass through an enterprise's webhook too: they leave no trace unless a runner of
  -- ours took one.
  local took = runner and (kind == 'in_progress' or kind == 'completed')
  if not args.ours and not took then return cjson.encode({ state = state or 'ignored' }) end
  if again then call('DEL', 'job:' .. job .. ':info') end
  state = false
  remember_job(job, learn(org, args.owner_id, args.at), args)
elseif state ~= 'completed' and args.ours and not class then
  remember_job(job, learn(org, args.owner_id, args.at), args) -- taken for other runners' business until now
elseif attempts > 0 then
  call('HSET', 'job:' .. job .. ':info', 'attempt', args.attempt)
end
if state == 'completed' and not given_up then
  if kind == 'completed' and runner then ending(runner, job) end
  return cjson.encode({ state = 'completed' })
end
told(job)
if args.ours and (kind == 'queued' or kind == 'waiting') then
  local late = string.lower(org) ~= string.lower(args.org)
  local has_not_begun = state == 'queued' or state == 'waiting' or state == 'in_question'
  if has_not_begun and class and not late then reclass(job, learn(org, args.owner_id, args.at), args) end
  if args.classes and call('HGET', 'ledger:meta', 'classes') ~= args.classes then
    call('HDEL', 'ledger:meta', 'derived') -- by settings that are not the ones that hold: its class is derived anew
  end
end

if kind == 'queued' then
  if not state or state == 'waiting' then
    queue(job)
  elseif state == 'in_question' then
    ask(job, now) -- GitHub decides; what was asked before this word is stale
  end
elseif kind == 'waiting' then
  if not state then
    wait_for_approval(job)
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
  -- It went before this word came. It ran its job to the end, so GitHub has removed its registration: there is nothing
  -- to look up.
  if args.runner and args.conclusion == 'success' and meant(args.runner, org, args.runner_id) then
    call('ZREM', 'registrations:uncertain', args.runner)
  end
end
return cjson.encode({ state = job_state(job) or 'ignored' })
