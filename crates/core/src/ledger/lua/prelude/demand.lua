-- needs: args, settings, owner
--
-- Demand: what each class lacks, which organizations may be served next.

local FORGET_MS = 30 * 86400000 -- so long an owner is remembered without a job
local FORGOTTEN = 16 -- owners that one slice forgets
local COUNTED = 48 -- owners that one slice counts

local function limit_of(org)
  return tonumber(call('HGET', 'org_limits', org)) or setting('max_per_org')
end

-- Sizes of all organizations in one place, for people and metrics: those that have none are not in it.
local function note_size(key, org, size)
  if size > 0 then call('HSET', key, org, size) else call('HDEL', key, org) end
end

-- Puts an organization into `orgs:ready`, or takes it out: ready means unmet demand, room below its limit, and no
-- pause. What backs off is looked up when it is picked; one that was put aside then keeps its place there.
-- Score: the number of the admission at which it was last served, plus its share of its own limit scaled to the
-- maximum.
local function refresh_org(org)
  note_size('orgs:pending', org, call('ZCARD', 'org:' .. org .. ':pending'))
  local running, limit, maximum = call('SCARD', 'org:' .. org .. ':runners'), limit_of(org), setting('max_total')
  local aside = call('HGET', 'orgs:parked', org)
  if running < limit and maximum > 0
    and call('EXISTS', 'org:' .. org .. ':classes') == 1 and call('HEXISTS', 'orgs:paused', org) == 0 then
    local served = tonumber(call('HGET', 'orgs:served', org)) or 0
    local score = served + maximum * running / math.min(limit, maximum)
    call('ZADD', aside and aside .. ':parked' or 'orgs:ready', score, org)
  elseif aside then
    call('ZREM', aside .. ':parked', org)
    call('HDEL', 'orgs:parked', org)
  else
    call('ZREM', 'orgs:ready', org)
  end
end

-- How many runners fit into the runners' namespace: as many as there were when its quota last refused one, plus one for
-- each `quota_interval` since. Nil where it never did.
local function ceiling()
  local runners, since = fields('quota:ceiling', 'runners', 'since')
  return runners and tonumber(runners) + math.floor((now - since) / math.max(setting('quota_interval'), 1))
end

-- How many idle runners a class should have: one for each queued job. One at a time where its last one did not fit,
-- until one gets work.
local function wanted(class)
  local queued = call('ZCARD', 'class:' .. class .. ':queued')
  if call('HEXISTS', 'class:' .. class .. ':info', 'misfit') == 1 then return math.min(queued, 1) end
  return queued
end

local function ensure_class(class, of)
  if call('EXISTS', 'class:' .. class .. ':info') == 0 then
    call('HSET', 'class:' .. class .. ':info', 'org', of.org, 'scope', of.scope, 'group', of.group,
      'profile', of.profile, 'labels', of.labels)
  end
  if of.owner_id then call('HSETNX', 'class:' .. class .. ':info', 'owner_id', of.owner_id) end
end

-- Recounts one class after its queue or its idle runners changed, then its organization. A class with neither is
-- deleted.
local function refresh_class(class)
  local key = 'class:' .. class
  follow_rename(key .. ':info')
  local org, aside = fields(key .. ':info', 'org', 'parked')
  if not org then return end
  local wants, idle = wanted(class), call('SCARD', key .. ':idle')
  if wants > idle then
    local first_unmet = call('ZRANGE', key .. ':queued', idle, idle, 'WITHSCORES')
    call('ZADD', aside and aside .. ':parked' or 'org:' .. org .. ':classes', first_unmet[2], class)
  elseif aside then
    call('ZREM', aside .. ':parked', class)
    call('HDEL', key .. ':info', 'parked')
  else
    call('ZREM', 'org:' .. org .. ':classes', class)
  end
  if idle > wants then
    call('ZADD', 'classes:surplus', 'NX', now, class)
  else
    call('ZREM', 'classes:surplus', class)
  end
  if wants == 0 and idle == 0 then call('DEL', key .. ':info') end
  refresh_org(org)
end

-- The mirrors that operators read; admission never does. Set, not incremented: whatever was written there by hand is
-- put right.
local function mirror(org)
  local running = call('SCARD', 'org:' .. org .. ':runners')
  call('SET', 'org:' .. org .. ':running', running)
  note_size('orgs:running', org, running)
  call('SET', 'global:total_running', call('SCARD', 'runners:live'))
end

-- An owner is needed while it has a job or a runner, or while an operator has set a limit or a pause for it.
local function is_needed(org)
  if call('EXISTS', 'org:' .. org .. ':pending', 'org:' .. org .. ':runners') > 0 then return true end
  return call('HEXISTS', 'org_limits', org) == 1 or call('HEXISTS', 'orgs:paused', org) == 1
end

local function forget(org)
  local credential, id = call('HGET', 'orgs:credential', org), call('HGET', 'owners:ids', string.lower(org))
  if credential then call('SREM', 'credential:' .. credential .. ':orgs', org) end
  if id then
    for _, hash in ipairs({ 'owners:logins', 'owners:told', 'owners:moving' }) do call('HDEL', hash, id) end
  end
  for _, hash in ipairs({ 'orgs:served', 'orgs:credential' }) do call('HDEL', hash, org) end
  for _, hash in ipairs({ 'orgs:known', 'owners:ids' }) do call('HDEL', hash, string.lower(org)) end
  call('ZREM', 'owners:heard', org)
  call('DEL', 'org:' .. org .. ':running', 'org:' .. org .. ':repos')
end

-- Forgets owners that have had no job for long, some at a time.
local function forget_silent()
  for _, org in ipairs(call('ZRANGEBYSCORE', 'owners:heard', '-inf', now - FORGET_MS, 'LIMIT', 0, FORGOTTEN)) do
    if is_needed(org) then call('ZADD', 'owners:heard', now, org) else forget(org) end
  end
end

-- Begins to count all organizations anew, a slice at a time: `recount` goes on with it.
local function begin_recount()
  call('HSET', 'ledger:meta', 'recount', '0')
end

-- Counts a slice of the organizations anew. Whether there is more, and how many mirrors were wrong.
local function recount()
  local cursor, corrected = call('HGET', 'ledger:meta', 'recount'), 0
  if not cursor then return false, 0 end
  local slice = call('HSCAN', 'orgs:known', cursor, 'COUNT', COUNTED)
  -- some are from a release that did not note it
  local unheard = call('ZCARD', 'owners:heard') < call('HLEN', 'orgs:known')
  for i = 2, #slice[2], 2 do
    local org = slice[2][i]
    local mirrored = tonumber(call('GET', 'org:' .. org .. ':running')) or 0
    if mirrored ~= call('SCARD', 'org:' .. org .. ':runners') then corrected = corrected + 1 end
    mirror(org)
    refresh_org(org)
    if unheard then call('ZADD', 'owners:heard', 'NX', now, org) end
  end
  forget_silent()
  local more = slice[1] ~= '0'
  if more then call('HSET', 'ledger:meta', 'recount', slice[1]) else call('HDEL', 'ledger:meta', 'recount') end
  return more, corrected
end
