-- Demand: what each class lacks, which organizations may be served next. Prelude of every transition, first part.
--
-- ARGV[1] is one JSON object. Ids are strings there: a Lua number holds 53 bits, a GitHub id up to 63.
-- Times are milliseconds by Redis's own clock, so that no worker's clock matters; a test passes `now`.

local call = redis.call
local args = cjson.decode(ARGV[1])
local now = args.now
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local settings = {}
-- A number of the effective configuration, which `configure` keeps in `ledger:meta`.
local function setting(name)
  if settings[name] == nil then
    settings[name] = tonumber(call('HGET', 'ledger:meta', name)) or 0
  end
  return settings[name]
end

local function fields(key, ...)
  return unpack(call('HMGET', key, ...))
end

-- The login as GitHub writes it, whatever the case it comes in.
local function known(org)
  return call('HGET', 'orgs:known', string.lower(org)) or org
end

-- Learns a login from GitHub's own spelling; what operators had set under another spelling moves to it.
local function learn(org)
  local login = call('HGET', 'orgs:known', string.lower(org))
  if login then return login end
  -- The Python system kept a list under this key: nothing of ours may be mixed with what it left.
  if call('TYPE', 'org:' .. org .. ':pending').ok == 'list' then
    error('LEGACY this Redis holds data of the Python system (org:' .. org .. ':pending is a list): use another Redis or database, or flush this one', 0)
  end
  call('HSET', 'orgs:known', string.lower(org), org)
  for _, key in ipairs({ 'org_limits', 'orgs:paused' }) do
    for _, spelt in ipairs(call('HKEYS', key)) do
      if spelt ~= org and string.lower(spelt) == string.lower(org) then
        call('HSET', key, org, call('HGET', key, spelt))
        call('HDEL', key, spelt)
        local until_ms = key == 'orgs:paused' and call('ZSCORE', 'backoffs', 'pause:' .. spelt)
        if until_ms then
          call('ZREM', 'backoffs', 'pause:' .. spelt)
          call('ZADD', 'backoffs', until_ms, 'pause:' .. org)
        end
      end
    end
  end
  return org
end

local function limit_of(org)
  return tonumber(call('HGET', 'org_limits', org)) or setting('max_per_org')
end

-- Sizes of all organizations in one place, for people and metrics: those that have none are not in it.
local function note_size(key, org, size)
  if size > 0 then call('HSET', key, org, size) else call('HDEL', key, org) end
end

-- Puts an organization into `orgs:ready`, or takes it out: ready means unmet demand, room below its limit, and no pause. What backs off is looked up
-- when it is picked; one that was put aside then keeps its place there.
-- Score: the number of the admission at which it was last served, plus its share of its own limit scaled to the maximum.
local function refresh_org(org)
  note_size('orgs:pending', org, call('ZCARD', 'org:' .. org .. ':pending'))
  local running, limit, maximum = call('SCARD', 'org:' .. org .. ':runners'), limit_of(org), setting('max_total')
  local aside = call('HGET', 'orgs:parked', org)
  if running < limit and maximum > 0 and call('EXISTS', 'org:' .. org .. ':classes') == 1 and call('HEXISTS', 'orgs:paused', org) == 0 then
    local served = tonumber(call('HGET', 'orgs:served', org)) or 0
    call('ZADD', aside and aside .. ':parked' or 'orgs:ready', served + maximum * running / math.min(limit, maximum), org)
  elseif aside then
    call('ZREM', aside .. ':parked', org)
    call('HDEL', 'orgs:parked', org)
  else
    call('ZREM', 'orgs:ready', org)
  end
end

-- How many runners fit into the runners' namespace: as many as there were when its quota last refused one, plus one for each
-- `quota_interval` since. Nil where it never did.
local function ceiling()
  local runners, since = fields('quota:ceiling', 'runners', 'since')
  return runners and tonumber(runners) + math.floor((now - since) / math.max(setting('quota_interval'), 1))
end

-- How many idle runners a class should have: one for each queued job. One at a time where its last one did not fit, until one gets work.
local function wanted(class)
  local queued = call('ZCARD', 'class:' .. class .. ':queued')
  if call('HEXISTS', 'class:' .. class .. ':info', 'misfit') == 1 then return math.min(queued, 1) end
  return queued
end

local function ensure_class(class, of)
  if call('EXISTS', 'class:' .. class .. ':info') == 0 then
    call('HSET', 'class:' .. class .. ':info', 'org', of.org, 'scope', of.scope, 'group', of.group, 'profile', of.profile, 'labels', of.labels)
  end
end

-- Recounts one class after its queue or its idle runners changed, then its organization. A class with neither is deleted.
local function refresh_class(class)
  local key = 'class:' .. class
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

-- The mirrors that operators read; admission never does. Set, not incremented: whatever was written there by hand is put right.
local function mirror(org)
  local running = call('SCARD', 'org:' .. org .. ':runners')
  call('SET', 'org:' .. org .. ':running', running)
  note_size('orgs:running', org, running)
  call('SET', 'global:total_running', call('SCARD', 'runners:live'))
end

-- Begins to count all organizations anew, a slice at a time: `recount` goes on with it.
local function begin_recount()
  call('HSET', 'ledger:meta', 'recount', '0')
end

-- Counts a slice of the organizations anew. Whether there is more, and how many mirrors were wrong.
local function recount()
  local cursor, corrected = call('HGET', 'ledger:meta', 'recount'), 0
  if not cursor then return false, 0 end
  local slice = call('HSCAN', 'orgs:known', cursor, 'COUNT', 64)
  for i = 2, #slice[2], 2 do
    local org = slice[2][i]
    if (tonumber(call('GET', 'org:' .. org .. ':running')) or 0) ~= call('SCARD', 'org:' .. org .. ':runners') then corrected = corrected + 1 end
    mirror(org)
    refresh_org(org)
  end
  local more = slice[1] ~= '0'
  if more then call('HSET', 'ledger:meta', 'recount', slice[1]) else call('HDEL', 'ledger:meta', 'recount') end
  return more, corrected
end
