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

-- A subject (`class:ID`, `org:ORG`, `profile:NAME`, `credential:NAME`, `global`) backs off while it is in `backoffs`; `wake` takes it out when its time has come.
local function backing_off(subject)
  return call('ZSCORE', 'backoffs', subject) and true or false
end

-- Whether the credential that serves an organization, as far as that is known, backs off.
local function unserved(org)
  local credential = call('HGET', 'orgs:credential', org)
  return credential and backing_off('credential:' .. credential)
end

-- Puts an organization into `orgs:ready`, or takes it out: ready means unmet demand, room below its limit, no back-off and no pause.
-- Score: the number of the admission at which it was last served, plus its share of its own limit scaled to the maximum.
local function refresh_org(org)
  local running, limit, maximum = call('SCARD', 'org:' .. org .. ':runners'), limit_of(org), setting('max_total')
  if running < limit and maximum > 0 and call('EXISTS', 'org:' .. org .. ':classes') == 1
      and call('HEXISTS', 'orgs:paused', org) == 0 and not backing_off('org:' .. org) and not unserved(org) then
    local served = tonumber(call('HGET', 'orgs:served', org)) or 0
    call('ZADD', 'orgs:ready', served + maximum * running / math.min(limit, maximum), org)
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
    call('SADD', 'profile:' .. of.profile .. ':classes', class)
  end
end

-- Recounts one class after its queue or its idle runners changed, then its organization. A class with neither is deleted.
local function refresh_class(class)
  local key = 'class:' .. class
  local org, profile = fields(key .. ':info', 'org', 'profile')
  if not org then return end
  local wants, idle = wanted(class), call('SCARD', key .. ':idle')
  if wants > idle and not backing_off(key) and not backing_off('profile:' .. profile) then
    local first_unmet = call('ZRANGE', key .. ':queued', idle, idle, 'WITHSCORES')
    call('ZADD', 'org:' .. org .. ':classes', first_unmet[2], class)
  else
    call('ZREM', 'org:' .. org .. ':classes', class)
  end
  if idle > wants then
    call('ZADD', 'classes:surplus', 'NX', now, class)
  else
    call('ZREM', 'classes:surplus', class)
  end
  if wants == 0 and idle == 0 then
    call('DEL', key .. ':info', key .. ':backoff')
    call('ZREM', 'backoffs', key)
    call('SREM', 'profile:' .. profile .. ':classes', class)
  end
  refresh_org(org)
end

local function refresh_subject(subject)
  local kind, name = string.match(subject, '^(%a+):?(.*)$')
  if kind == 'class' then
    refresh_class(name)
  elseif kind == 'org' then
    refresh_org(name)
  elseif kind == 'profile' then
    for _, class in ipairs(call('SMEMBERS', 'profile:' .. name .. ':classes')) do refresh_class(class) end
  elseif kind == 'credential' then
    for _, org in ipairs(call('SMEMBERS', subject .. ':orgs')) do refresh_org(org) end
  elseif kind == 'pause' then
    call('HDEL', 'orgs:paused', name)
    refresh_org(name)
  end
end

-- Ends the back-offs and pauses whose time has come.
local function wake()
  for _, subject in ipairs(call('ZRANGEBYSCORE', 'backoffs', '-inf', now, 'LIMIT', 0, 64)) do
    call('ZREM', 'backoffs', subject)
    refresh_subject(subject)
  end
end

-- Holds a subject back for `delay`, doubled with each failure in a row, up to `cap` (both ms). The reason is for people.
-- What fails while its subject backs off already was under way before: the same failure, not one more; and it cuts nothing short.
local function back_off(subject, delay, cap, reason)
  local class = string.match(subject, '^class:(.*)$')
  if class and call('EXISTS', 'class:' .. class .. ':info') == 0 then return 0 end -- it has neither job nor runner any more
  local key = subject .. ':backoff'
  local held_until = tonumber(call('ZSCORE', 'backoffs', subject))
  local failures = call('HINCRBY', key, 'failures', held_until and 0 or 1)
  local wait = math.max(delay, math.min(delay * 2 ^ math.min(failures - 1, 20), cap))
  if held_until and held_until >= now + wait then return held_until - now end
  call('HSET', key, 'reason', reason, 'since', now, 'until', now + wait)
  call('ZADD', 'backoffs', now + wait, subject)
  call('PEXPIRE', key, wait + 3600000)
  refresh_subject(subject)
  return wait
end

-- What works again has not failed in a row any more; a back-off that is in force stays, with its reason.
local function succeeded(subject)
  call('HDEL', subject .. ':backoff', 'failures')
end
