-- Recovery: what never came. The cursor of the sweep, what it found, failed deliveries, registrations without an owner here.
-- It changes no job and no runner: what is found goes to `jit:events`, and takes the ordinary way.
--
-- args: op, and what each op says below

local STATE = 'recovery'
local HOUR_MS = 3600000
local FORGET_REPO_MS = 30 * 86400000 -- a repository that was not heard of for so long is not swept any more
local KEEP_DELIVERY_MS = 7 * 86400000 -- GitHub keeps deliveries for 3 days, GHES for 7
local SWEEP_TRIES = 3 -- a repository that does not answer is looked at so often in a pass, which is then over without it
local GIVE_UP_MS = HOUR_MS -- an owner that does not answer for so long is left to the next rediscovery
local BACKLOG = 1000 -- with more events on their way, what looks unknown may be among them

local ops = {}

local function number(field)
  return tonumber(call('HGET', STATE, field)) or 0
end

local function listed(result, name, list)
  if #list > 0 then result[name] = list end -- cjson writes an empty table as an object
  return result
end

-- Takes the right to work on a slice, from nobody, from a worker that is dead, or back: a worker works on one at a time, so that it had given
-- its own back, had Redis been there. args: worker, at_most, dead_after (ms)
function ops.take()
  local key = 'tick:recovery:work'
  local holder = call('GET', key)
  local alive = holder and (tonumber(call('ZSCORE', 'workers:alive', holder)) or 0) > now - args.dead_after
  if holder and holder ~= args.worker and alive then return { taken = false } end
  call('SET', key, args.worker, 'PX', args.at_most)
  return { taken = true }
end

-- A tick begins. args: interval, calls_per_hour, rediscover_interval (ms), redelivery, scopes (organization | repository | an enterprise's scope)
-- Where the epoch is another than at the tick before, the data may have been lost: everything is looked for anew, and at once.
function ops.tick()
  local epoch = call('HGET', 'ledger:meta', 'epoch')
  if not epoch then return { open = false } end
  if call('HGET', STATE, 'epoch') ~= epoch then
    call('HSET', STATE, 'epoch', epoch, 'urgent', 1)
    call('HDEL', STATE, 'rediscovered_at', 'rediscovery', 'sweep_began')
    call('DEL', 'repos:sweep', 'owners:rediscover', 'owners:missed', 'strays:scopes', 'hooks:asked')
  end
  call('HSET', STATE, 'ticked_at', now, 'interval', args.interval, 'calls_per_hour', args.calls_per_hour, 'redelivery', args.redelivery and 1 or 0)
  call('ZREMRANGEBYSCORE', 'repos:active', '-inf', now - FORGET_REPO_MS)
  call('ZREMRANGEBYSCORE', 'strays:seen', '-inf', now - KEEP_DELIVERY_MS)
  call('ZREMRANGEBYSCORE', 'hooks:asked', '-inf', now - KEEP_DELIVERY_MS)
  local rediscovery, rediscovered_at = fields(STATE, 'rediscovery', 'rediscovered_at')
  if not rediscovery and now - (tonumber(rediscovered_at) or 0) >= args.rediscover_interval then
    rediscovery = '0'
    call('HSET', STATE, 'rediscovery', rediscovery)
  end
  if args.scopes == 'organization' or args.scopes == 'repository' then
    for _, org in ipairs(call('HVALS', 'orgs:known')) do
      if string.find(org, '/', 1, true) then
        call('ZADD', 'strays:scopes', 'NX', now, 'repos/' .. org)
      elseif args.scopes == 'organization' then
        call('ZADD', 'strays:scopes', 'NX', now, 'orgs/' .. org)
      end
    end
    if args.scopes == 'repository' then
      for _, repo in ipairs(call('ZRANGE', 'repos:active', 0, -1)) do call('ZADD', 'strays:scopes', 'NX', now, 'repos/' .. repo) end
    end
  else
    call('ZADD', 'strays:scopes', 'NX', now, args.scopes)
  end
  return { open = true, urgent = number('urgent') == 1, rediscovery = rediscovery or nil }
end

-- The repositories to look at next, newest first. A pass begins with all that are active; one that a pass adds is looked at in the next.
-- args: from, n, start (a new pass may begin)
function ops.sweep()
  if call('EXISTS', 'repos:sweep') == 0 then
    local began = number('sweep_began')
    if began > 0 then
      call('HSET', STATE, 'swept_at', now, 'pass_ms', now - began, 'pass_repos', number('sweep_repos'), 'pass_calls', number('sweep_calls'))
      call('HDEL', STATE, 'sweep_began')
      if call('HEXISTS', STATE, 'rediscovery') == 0 then call('HDEL', STATE, 'urgent') end
    end
    if not args.start then return { ended = true } end
    call('HSET', STATE, 'sweep_began', now, 'sweep_repos', call('ZUNIONSTORE', 'repos:sweep', 1, 'repos:active'), 'sweep_calls', 0)
  end
  return listed({ ended = false }, 'repos', call('ZREVRANGE', 'repos:sweep', args.from, args.from + args.n - 1))
end

-- A repository was looked at, or did not answer: then the others come first, and it comes again at the end of the pass, by the number of its failures.
-- args: repo, calls (that it took), failed
function ops.swept()
  local failures = args.failed and 1 + math.max(0, -(tonumber(call('ZSCORE', 'repos:sweep', args.repo)) or 0)) or SWEEP_TRIES
  if failures < SWEEP_TRIES then
    call('ZADD', 'repos:sweep', 'XX', -failures, args.repo)
  else
    call('ZREM', 'repos:sweep', args.repo)
  end
  call('HINCRBY', STATE, 'sweep_calls', args.calls)
  return {}
end

-- What the ledger lacks, if anything, of a job that GitHub calls queued or in progress.
local function lacks(found)
  local key = 'job:' .. found.job .. ':info'
  local state, attempt, conclusion = fields(key, 'state', 'attempt', 'conclusion')
  if state == 'completed' then
    -- A tombstone wins, but for the one that is our own guess: GitHub had not known the job, and does now.
    if conclusion == 'gone' then
      call('DEL', key)
      return true
    end
    return attempt and found.attempt and tonumber(found.attempt) > tonumber(attempt)
  end
  if found.kind == 'queued' then
    if state == 'in_progress' then ask(found.job, now) end -- put back, or the list is older than the word that it runs: GitHub is asked
    return not state or state == 'waiting'
  end
  local live = found.runner and call('SISMEMBER', 'runners:live', found.runner) == 1
  if not state then return live and true or found.ours end
  return state ~= 'in_progress' or (live and not call('HGET', 'runner:' .. found.runner .. ':info', 'running_job'))
end

-- Appends what the ledger lacks to the events. args: v, jobs ([{job, kind, attempt, runner, ours (its runner has our prefix), event}])
function ops.found()
  local result = { queued = 0, in_progress = 0, backlog = call('XLEN', 'jit:events') > BACKLOG }
  if result.backlog then return result end
  for _, found in ipairs(args.jobs) do
    if lacks(found) then
      call('XADD', 'jit:events', '*', 'v', args.v, 'event', found.event, 'delivery', 'sweep')
      result[found.kind] = result[found.kind] + 1
    end
  end
  call('HINCRBY', STATE, 'found_jobs', result.queued)
  return result
end

-- Repositories and owners of repositories that GitHub told of. args: repos ([{name, at}]), owners, done (an owner),
-- missed (one that did not answer, and is to be asked again), cursor (of the list of owners; `end`: all listed)
function ops.discovered()
  local urgent = number('urgent') == 1
  for _, repo in ipairs(args.repos or {}) do
    local at = math.min(repo.at, now)
    if at > now - FORGET_REPO_MS then
      local added = call('ZADD', 'repos:active', 'GT', 'CH', at, repo.name)
      if urgent and added == 1 then -- not in the next pass, but at once
        if call('HSETNX', STATE, 'sweep_began', now) == 1 then call('HSET', STATE, 'sweep_repos', 0, 'sweep_calls', 0) end
        call('HINCRBY', STATE, 'sweep_repos', call('ZADD', 'repos:sweep', 'GT', at, repo.name))
      end
    end
  end
  for _, owner in ipairs(args.owners or {}) do call('SADD', 'owners:rediscover', owner) end
  if args.done then
    call('SREM', 'owners:rediscover', args.done)
    call('HDEL', 'owners:missed', args.done)
  end
  if args.missed then
    call('HSETNX', 'owners:missed', args.missed, now)
    if now - tonumber(call('HGET', 'owners:missed', args.missed)) >= GIVE_UP_MS then call('SREM', 'owners:rediscover', args.missed) end
  end
  if args.cursor then call('HSET', STATE, 'rediscovery', args.cursor) end
  if call('HGET', STATE, 'rediscovery') == 'end' and call('EXISTS', 'owners:rediscover') == 0 then
    call('HDEL', STATE, 'rediscovery')
    call('DEL', 'owners:missed')
    call('HSET', STATE, 'rediscovered_at', now)
    if call('HEXISTS', STATE, 'sweep_began') == 0 then call('HDEL', STATE, 'urgent') end
  end
  return {}
end

-- Owners whose repositories are still to be listed. args: n
function ops.owners()
  return listed({}, 'owners', call('SRANDMEMBER', 'owners:rediscover', args.n))
end

-- Where registrations are to be looked at. args: n
function ops.stray_scopes()
  return listed({}, 'scopes', call('ZRANGEBYSCORE', 'strays:scopes', '-inf', now, 'LIMIT', 0, args.n))
end

-- Registrations of our prefix at one scope: `seen` are offline and not busy, `cleared` are not. Gives back those to delete: unknown here, and seen so before.
-- args: scope, seen ([{name, id}]), cleared ([{name, id}]), confirm, again (ms)
function ops.strays()
  local member = function(runner) return args.scope .. ' ' .. runner.id .. ' ' .. runner.name end
  local delete, noted = {}, false
  for _, runner in ipairs(args.cleared or {}) do call('ZREM', 'strays:seen', member(runner)) end
  for _, runner in ipairs(args.seen or {}) do
    local first = tonumber(call('ZSCORE', 'strays:seen', member(runner)))
    if call('SISMEMBER', 'runners:live', runner.name) == 1 then
      call('ZREM', 'strays:seen', member(runner))
    elseif first and now - first >= args.confirm then
      delete[#delete + 1] = runner
    else
      if not first then call('ZADD', 'strays:seen', now, member(runner)) end
      noted = true
    end
  end
  call('ZADD', 'strays:scopes', now + (noted and math.min(args.confirm, args.again) or args.again), args.scope)
  return listed({}, 'delete', delete)
end

-- A stray registration is gone. args: scope, name, id
function ops.stray_gone()
  call('ZREM', 'strays:seen', args.scope .. ' ' .. args.id .. ' ' .. args.name)
  call('HINCRBY', STATE, 'strays_deleted', 1)
  return {}
end

-- Newest first, those of queued jobs before all others.
local function priority(key)
  local at, action = fields(key, 'at', 'action')
  return tonumber(at) + (action == 'queued' and 4e12 or 0)
end

-- What a page of a hook's deliveries holds. args: hook, failed ([{guid, id, action, at}], in order of time), settled (guids that a 2xx has answered), most (tries)
function ops.deliveries()
  for _, guid in ipairs(args.settled or {}) do
    local key = 'delivery:' .. guid
    call('ZREM', 'deliveries:failed', guid)
    call('ZREM', 'deliveries:later', guid)
    call('HSET', key, 'settled', 1)
    call('PEXPIRE', key, KEEP_DELIVERY_MS)
  end
  for _, failed in ipairs(args.failed or {}) do
    local key = 'delivery:' .. failed.guid
    local id, at, settled, tries, not_before = fields(key, 'id', 'at', 'settled', 'tries', 'not_before')
    local news = not at or tonumber(at) < failed.at or (tonumber(at) == failed.at and id ~= failed.id)
    if news and not settled and (tonumber(tries) or 0) < args.most then
      call('HSET', key, 'id', failed.id, 'hook', args.hook, 'action', failed.action, 'at', failed.at)
      call('PEXPIRE', key, KEEP_DELIVERY_MS)
      if not_before and tonumber(not_before) > now then
        call('ZADD', 'deliveries:later', not_before, failed.guid)
      else
        call('ZADD', 'deliveries:failed', priority(key), failed.guid)
      end
    end
  end
  return {}
end

-- A hook's receiver can be reached again: its deliveries wait no longer. args: hook
function ops.awake()
  for _, guid in ipairs(call('ZRANGE', 'deliveries:later', 0, 9999)) do
    local key = 'delivery:' .. guid
    if call('HGET', key, 'hook') == args.hook then
      call('ZREM', 'deliveries:later', guid)
      call('HDEL', key, 'not_before')
      call('ZADD', 'deliveries:failed', priority(key), guid)
    end
  end
  return {}
end

-- The deliveries to repeat next. args: n
function ops.redeliverable()
  for _, guid in ipairs(call('ZRANGEBYSCORE', 'deliveries:later', '-inf', now, 'LIMIT', 0, 1000)) do
    call('ZREM', 'deliveries:later', guid)
    if call('EXISTS', 'delivery:' .. guid) == 1 then call('ZADD', 'deliveries:failed', priority('delivery:' .. guid), guid) end
  end
  local deliveries = {}
  for _, guid in ipairs(call('ZREVRANGE', 'deliveries:failed', 0, args.n - 1)) do
    local id, hook, action = fields('delivery:' .. guid, 'id', 'hook', 'action')
    if id then
      deliveries[#deliveries + 1] = { guid = guid, id = id, hook = hook, action = action }
    else
      call('ZREM', 'deliveries:failed', guid) -- GitHub has forgotten it, too
    end
  end
  return listed({}, 'deliveries', deliveries)
end

-- GitHub was asked to repeat a delivery. Should that fail, too, it waits for a minute before the next, then 2, 4, … 60.
-- args: guid, forgotten (GitHub does not know it any more), refused (it was not repeated this time), most (tries)
function ops.redelivered()
  local key = 'delivery:' .. args.guid
  call('ZREM', 'deliveries:failed', args.guid)
  call('ZREM', 'deliveries:later', args.guid)
  if args.forgotten then
    call('HSET', key, 'settled', 1)
  else
    local tries = call('HINCRBY', key, 'tries', 1)
    local not_before = now + math.min(60000 * 2 ^ (tries - 1), HOUR_MS)
    call('HSET', key, 'not_before', not_before)
    if not args.refused then
      call('HINCRBY', STATE, 'redelivered', 1)
    elseif tries < args.most then
      call('ZADD', 'deliveries:later', not_before, args.guid) -- no list will tell of a try that was none
    end
  end
  call('PEXPIRE', key, KEEP_DELIVERY_MS)
  return {}
end

return cjson.encode(ops[args.op]())
