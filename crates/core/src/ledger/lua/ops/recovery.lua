-- needs: args, runner
--
-- Recovery: what never came. What is to be looked at next, what was found, failed deliveries, registrations without an
-- owner here. It changes no job and no runner: what is found goes to `jit:events`, and takes the ordinary way.
--
-- What is looked at stands in queues, one for each account (whatever GitHub counts calls of) and round of work:
-- `recover:{account}:{round}`, item -> time. So a tick that has no budget for an account does not touch what is the
-- account's. Rounds, and what their times are:
--   repos   owner/repo, when last visited; negative: never, newest first
--   rereads owner/repo, when all of its runs were last asked for
--   hooks   webhook, when its deliveries were last read
--   lists   what GitHub is asked to list, when it is due
--   scopes  scope, when its registrations are due
--
-- args: op, and what each op says below

local STATE = 'recovery'
local ACCOUNTS = 'recovery:accounts' -- account -> its turn may come after this time
local HOUR_MS = 3600000
local FORGET_REPO_MS = 30 * 86400000 -- a repository that was not heard of for so long is not swept any more
local KEEP_DELIVERY_MS = 7 * 86400000 -- GitHub keeps deliveries for 3 days, GHES for 7
local URGENT_MS = HOUR_MS -- what does not answer for so long after a loss of data is not urgent any more
local BACKLOG = 1000 -- with more events on their way, what looks unknown may be among them
local SOME = 400 -- members of a set that one call walks through at most

local ops = {}

local function number(field)
  return tonumber(call('HGET', STATE, field)) or 0
end

local function listed(result, name, list)
  if #list > 0 then result[name] = list end -- cjson writes an empty table as an object
  return result
end

local function queue_of(account, round)
  return 'recover:' .. account .. ':' .. round
end

-- Removes what is older than `span`, some at a time.
local function prune(key, span)
  local old = call('ZRANGEBYSCORE', key, '-inf', now - span, 'LIMIT', 0, SOME)
  if #old > 0 then call('ZREM', key, unpack(old)) end
end

-- Takes the right to work on a slice, from nobody, from a worker that is dead, or back: a worker works on one at a
-- time, so that it had given its own back, had Redis been there. args: worker, at_most, dead_after (ms)
function ops.take()
  local key = 'tick:recovery:work'
  local holder = call('GET', key)
  local alive = holder and (tonumber(call('ZSCORE', 'workers:alive', holder)) or 0) > now - args.dead_after
  if holder and holder ~= args.worker and alive then return { taken = false } end
  call('SET', key, args.worker, 'PX', args.at_most)
  return { taken = true }
end

-- A tick begins. args: interval, calls_per_hour, redelivery
-- Where the epoch is another than at the tick before, the data may have been lost: everything is looked for anew, and
-- at once.
function ops.tick()
  local epoch = call('HGET', 'ledger:meta', 'epoch')
  if not epoch then return { open = false } end
  if call('HGET', STATE, 'epoch') ~= epoch or call('HEXISTS', STATE, 'walk') == 0 then
    call('HSET', STATE, 'epoch', epoch, 'epoch_at', now, 'walk', 0, 'walk_whole', 1)
  end
  call('HSET', STATE, 'ticked_at', now, 'interval', args.interval, 'calls_per_hour', args.calls_per_hour,
    'redelivery', args.redelivery and 1 or 0)
  prune('repos:active', FORGET_REPO_MS)
  prune('strays:seen', KEEP_DELIVERY_MS)
  local walk, whole = fields(STATE, 'walk', 'walk_whole')
  local result = { open = true, now = now, walk = walk, whole = whole == '1' }
  return listed(result, 'repos', call('SRANDMEMBER', 'repos:new', SOME))
end

-- What is known was walked through up to here, so that nobody is left out; 0: to its end. args: cursor
function ops.walked()
  call('HSET', STATE, 'walk', args.cursor)
  if args.cursor == '0' then call('HDEL', STATE, 'walk_whole') end
  return {}
end

-- In another epoch whoever is known is queued anew, and what an account had to ask for once in a while is to be asked
-- for at once.
local function renew(account, epoch)
  local mark = 'recover:' .. account
  if call('HGET', mark, 'epoch') ~= epoch then
    call('UNLINK', queue_of(account, 'scopes'), queue_of(account, 'lists'))
    call('HSET', mark, 'epoch', epoch)
  end
end

-- Queues what is not queued yet. args: items ([{account, round, item, at}]), known (repositories that are not new any
-- more)
function ops.enqueue()
  local epoch = call('HGET', STATE, 'epoch')
  for _, one in ipairs(args.items or {}) do
    local at = one.at
    if epoch then renew(one.account, epoch) end
    if one.round == 'repos' then at = -(tonumber(call('ZSCORE', 'repos:active', one.item)) or 0) end
    call('ZADD', queue_of(one.account, one.round), 'NX', at, one.item)
    call('ZADD', ACCOUNTS, 'NX', 0, one.account)
  end
  for _, repo in ipairs(args.known or {}) do call('SREM', 'repos:new', repo) end
  return {}
end

-- Accounts whose turn comes, those first that have waited longest. args: before, n
function ops.accounts()
  local before = '(' .. string.format('%.0f', args.before)
  local accounts = call('ZRANGEBYSCORE', ACCOUNTS, '-inf', before, 'LIMIT', 0, args.n)
  for _, account in ipairs(accounts) do call('ZADD', ACCOUNTS, now, account) end
  return listed({}, 'accounts', accounts)
end

-- What is due in these rounds of an account. args: account, rounds ([{name, before, n}])
-- A repository that is forgotten is left out, and so is all that was kept about it.
function ops.due()
  local result, items = {}, {}
  local epoch_at = number('epoch_at')
  for _, round in ipairs(args.rounds) do
    local key, found = queue_of(args.account, round.name), {}
    local due = call('ZRANGEBYSCORE', key, '-inf', '(' .. string.format('%.0f', round.before), 'LIMIT', 0, round.n)
    local repos = round.name == 'repos' or round.name == 'rereads'
    for _, item in ipairs(due) do
      if repos and not call('ZSCORE', 'repos:active', item) then
        call('ZREM', queue_of(args.account, 'repos'), item)
        call('ZREM', queue_of(args.account, 'rereads'), item)
        call('ZREM', queue_of(args.account, 'lists'), 'hooks repos/' .. item)
        call('HDEL', 'repos:runs', item)
        local owner, name = string.match(item, '^([^/]*)/(.*)$')
        if owner then call('SREM', 'org:' .. owner .. ':repos', name) end
      else
        found[#found + 1] = { item = item, known = repos and call('HGET', 'repos:runs', item) or nil }
      end
    end
    if #found > 0 then items[#items + 1] = { round = round.name, items = found } end
  end
  local oldest = call('ZRANGE', queue_of(args.account, 'repos'), 0, 0, 'WITHSCORES')[2]
  local list = call('ZRANGE', queue_of(args.account, 'lists'), 0, 0, 'WITHSCORES')[2]
  local behind = (oldest and tonumber(oldest) < epoch_at) or (list and tonumber(list) == 0)
  result.urgent = behind and now - epoch_at < URGENT_MS or false
  return listed(result, 'rounds', items)
end

-- The longest time between two looks, of this hour and the one before.
local function lag(round, at)
  if not at or at <= 0 then return end
  local hour = math.floor(now / HOUR_MS)
  local field = 'lag_' .. round
  local its, last = fields(STATE, field .. '_hour', field)
  its = tonumber(its)
  if its ~= hour then
    local before = its == hour - 1 and last or 0
    last = 0
    call('HSET', STATE, field .. '_hour', hour, field .. '_before', before)
  end
  call('HSET', STATE, field, string.format('%.0f', math.max(tonumber(last) or 0, now - at)))
end

-- An item of a round was looked at. args: account, round, item, at (its time in the queue from now on; none: it leaves
-- it), known (of a repository, JSON)
function ops.done()
  local key = queue_of(args.account, args.round)
  if args.at then
    if args.round == 'repos' or args.round == 'hooks' then lag(args.round, tonumber(call('ZSCORE', key, args.item))) end
    call('ZADD', key, args.at, args.item)
  else
    call('ZREM', key, args.item)
  end
  if args.known then call('HSET', 'repos:runs', args.item, args.known) end
  return {}
end

-- An account has had its turn, and has another after `not_before`. Takes down how far behind it is. args: account,
-- not_before, visited (repositories)
function ops.served()
  local repos = queue_of(args.account, 'repos')
  local mark = 'recover:' .. args.account
  local any = call('EXISTS', repos, queue_of(args.account, 'rereads'), queue_of(args.account, 'hooks'),
    queue_of(args.account, 'lists'), queue_of(args.account, 'scopes'))
  if any == 0 then
    call('ZREM', ACCOUNTS, args.account)
    call('ZREM', 'recovery:oldest', args.account)
    call('ZREM', 'recovery:unvisited', args.account)
    call('DEL', mark)
    return {}
  end
  call('ZADD', ACCOUNTS, math.max(args.not_before, now), args.account)
  local oldest = call('ZRANGEBYSCORE', repos, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if oldest then
    call('ZADD', 'recovery:oldest', oldest, args.account)
  else
    call('ZREM', 'recovery:oldest', args.account)
  end
  local unvisited = call('ZCOUNT', repos, '-inf', 0)
  local since = tonumber(call('HGET', mark, 'since'))
  if unvisited == 0 then
    call('ZREM', 'recovery:unvisited', args.account)
    call('HDEL', mark, 'since', 'visited')
  else
    -- The pace since it began to fall behind tells how long the rest takes.
    if not since then
      since = now
      call('HSET', mark, 'since', now)
    end
    local visited = call('HINCRBY', mark, 'visited', args.visited)
    local each = (now - since + number('interval')) / math.max(visited, 1)
    call('ZADD', 'recovery:unvisited', string.format('%.0f', unvisited * each), args.account)
  end
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
    -- put back, or the list is older than the word that it runs: GitHub is asked
    if state == 'in_progress' then ask(found.job, now) end
    return not state or state == 'waiting'
  end
  local live = found.runner and call('SISMEMBER', 'runners:live', found.runner) == 1
  if not state then return live and true or found.ours end
  return state ~= 'in_progress' or (live and not call('HGET', 'runner:' .. found.runner .. ':info', 'running_job'))
end

-- Appends what the ledger lacks to the events. args: v, jobs ([{job, kind, attempt, runner, ours (its runner has our
-- prefix), event}])
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

-- Repositories of an account that GitHub told of, with the time of the last push. args: account, repos ([{name, at}]),
-- hooks (those of each are to be listed)
function ops.discovered()
  for _, repo in ipairs(args.repos or {}) do
    local at = math.min(repo.at, now)
    if at > now - FORGET_REPO_MS then
      call('ZADD', 'repos:active', 'GT', at, repo.name)
      call('ZADD', queue_of(args.account, 'repos'), 'NX', -at, repo.name)
      call('ZADD', queue_of(args.account, 'rereads'), 'NX', now, repo.name)
      if args.hooks then call('ZADD', queue_of(args.account, 'lists'), 'NX', 0, 'hooks repos/' .. repo.name) end
    end
  end
  call('ZADD', ACCOUNTS, 'NX', 0, args.account)
  call('HSET', STATE, 'rediscovered_at', now)
  return {}
end

-- Registrations of our prefix at one scope: `seen` are offline and not busy, `cleared` are not. Gives back those to
-- delete: unknown here, and seen so before. args: account, scope, seen ([{name, id}]), cleared ([{name, id}]), confirm,
-- again (ms)
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
  local wait = noted and math.min(args.confirm, args.again) or args.again
  call('ZADD', queue_of(args.account, 'scopes'), now + wait, args.scope)
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

-- What a hook's deliveries wait in: those to repeat, queued jobs first, and those that failed again, by when.
local function failed_of(hook)
  return 'hook:' .. hook .. ':failed', 'hook:' .. hook .. ':later'
end

local function settle(hook, guid)
  local failed, later = failed_of(hook)
  call('ZREM', failed, guid)
  call('ZREM', later, guid)
  call('ZREM', 'deliveries:open', guid)
end

-- What a page of a hook's deliveries holds. args: hook, failed ([{guid, id, action, at}], in order of time), settled
-- (guids that a 2xx has answered), most (tries)
function ops.deliveries()
  local waiting, later = failed_of(args.hook)
  for _, guid in ipairs(args.settled or {}) do
    local key = 'delivery:' .. guid
    settle(args.hook, guid)
    call('HSET', key, 'settled', 1)
    call('PEXPIRE', key, KEEP_DELIVERY_MS)
  end
  for _, failed in ipairs(args.failed or {}) do
    local key = 'delivery:' .. failed.guid
    local id, at, settled, tries, not_before = fields(key, 'id', 'at', 'settled', 'tries', 'not_before')
    local news = not at or tonumber(at) < failed.at or (tonumber(at) == failed.at and id ~= failed.id)
    if news and not settled and (tonumber(tries) or 0) < args.most then
      call('HSET', key, 'id', failed.id, 'action', failed.action, 'at', failed.at)
      call('PEXPIRE', key, KEEP_DELIVERY_MS)
      call('ZADD', 'deliveries:open', now, failed.guid)
      if not_before and tonumber(not_before) > now then
        call('ZADD', later, not_before, failed.guid)
      else
        call('ZADD', waiting, priority(key), failed.guid)
      end
    end
  end
  prune('deliveries:open', KEEP_DELIVERY_MS)
  return {}
end

-- A hook's receiver can be reached again: its deliveries wait no longer. Some a call; whether there are more. args:
-- hook
function ops.awake()
  local failed, later = failed_of(args.hook)
  for _, guid in ipairs(call('ZRANGE', later, 0, SOME - 1)) do
    local key = 'delivery:' .. guid
    call('ZREM', later, guid)
    call('HDEL', key, 'not_before')
    if call('EXISTS', key) == 1 then call('ZADD', failed, priority(key), guid) end
  end
  return { more = call('EXISTS', later) == 1 }
end

-- The deliveries of a hook to repeat next. args: hook, n
function ops.redeliverable()
  local waiting, later = failed_of(args.hook)
  for _, guid in ipairs(call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, SOME)) do
    call('ZREM', later, guid)
    if call('EXISTS', 'delivery:' .. guid) == 1 then call('ZADD', waiting, priority('delivery:' .. guid), guid) end
  end
  local deliveries = {}
  for _, guid in ipairs(call('ZREVRANGE', waiting, 0, args.n - 1)) do
    local id, action = fields('delivery:' .. guid, 'id', 'action')
    if id then
      deliveries[#deliveries + 1] = { guid = guid, id = id, action = action }
    else
      settle(args.hook, guid) -- GitHub has forgotten it, too
    end
  end
  return listed({}, 'deliveries', deliveries)
end

-- GitHub was asked to repeat a delivery. Should that fail, too, it waits for a minute before the next, then 2, 4, … 60.
-- args: hook, guid, forgotten (GitHub does not know it any more), refused (it was not repeated this time), most (tries)
function ops.redelivered()
  local key = 'delivery:' .. args.guid
  local _, later = failed_of(args.hook)
  settle(args.hook, args.guid)
  if args.forgotten then
    call('HSET', key, 'settled', 1)
  else
    local tries = call('HINCRBY', key, 'tries', 1)
    local not_before = now + math.min(60000 * 2 ^ (tries - 1), HOUR_MS)
    call('HSET', key, 'not_before', not_before)
    if not args.refused then
      call('HINCRBY', STATE, 'redelivered', 1)
    elseif tries < args.most then
      call('ZADD', later, not_before, args.guid) -- no list will tell of a try that was none
      call('ZADD', 'deliveries:open', now, args.guid)
    end
  end
  call('PEXPIRE', key, KEEP_DELIVERY_MS)
  return {}
end

return cjson.encode(ops[args.op]())
