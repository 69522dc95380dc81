-- needs: args, backoff, held
--
-- budget: what GitHub allows, kept ahead of time by all workers together.
--
-- `credential:{name}:rate`         HASH  limit, remaining, reset (ms): what GitHub last said of the hour's calls;
-- spent: allowed here since then `credential:{name}:points`       ZSET  runner → when its registration was asked for,
-- of the last minute `credential:{name}:spare`        HASH  minute → optional calls, of the last hour, but those that
-- GitHub did not count (304) `credential:{name}:asked`        HASH  minute; calls: all optional calls of that minute
-- `credential:{name}:unlimited`    STRING  its server tells of no limit
-- `scope:{scope}:registrations`    ZSET  runner → when it was registered, of the last five minutes
--
-- args: what (said | registration | settle | renew | spare | uncounted | unlimited), credential, scope (lower case),
-- runner,
--       limit, remaining, reset_in (ms), registrations, registrations_ms, posts, posts_ms, reserve (share of the
--       limit), sent, calls, calls_per_hour, calls_per_minute, orgs (of those that the credential serves)

local MINUTE_MS, HOUR_MS = 60000, 3600000
-- Two words whose resets differ by less are of one window: GitHub tells whole seconds, and a word is some time on its
-- way.
local SAME_WINDOW_MS = 10000

local rate = 'credential:' .. args.credential .. ':rate'
local points = 'credential:' .. args.credential .. ':points'
local registrations = args.scope and 'scope:' .. args.scope .. ':registrations'

-- Limit, calls left and end of GitHub's window, or nothing where GitHub has said nothing that still holds.
local function hour()
  local limit, remaining, reset, spent = fields(rate, 'limit', 'remaining', 'reset', 'spent')
  reset = tonumber(reset)
  -- or Redis's clock was ahead when it was said
  if not reset or reset <= now or reset > now + HOUR_MS + MINUTE_MS then return nil end
  return tonumber(limit), tonumber(remaining) - (tonumber(spent) or 0), reset
end

-- When there is room for one more of `most` in any `span`: now (nil), or at that time.
local function room(key, most, span)
  if most == 0 then return nil end
  call('ZREMRANGEBYSCORE', key, '-inf', now - span)
  -- Redis's clock was ahead
  for _, member in ipairs(call('ZRANGEBYSCORE', key, '(' .. now, '+inf')) do call('ZADD', key, now, member) end
  local n = call('ZCARD', key)
  if n < most then return nil end
  local leaves = call('ZRANGE', key, n - most, n - most, 'WITHSCORES')
  return tonumber(leaves[2]) + span
end

local function note(key, span)
  call('ZADD', key, now, args.runner)
  call('PEXPIRE', key, span)
end

if args.what == 'said' then
  if args.reset_in <= 0 then return cjson.encode({}) end
  local reset = now + args.reset_in
  local known_remaining, known_reset = fields(rate, 'remaining', 'reset')
  known_reset = tonumber(known_reset)
  -- Words overtake each other: within one window the lower one is the later one.
  local remaining = args.remaining
  if known_reset and math.abs(known_reset - reset) < SAME_WINDOW_MS then
    remaining = math.min(remaining, tonumber(known_remaining))
    reset = math.max(reset, known_reset)
  end
  call('HSET', rate, 'limit', args.limit, 'remaining', remaining, 'reset', reset, 'spent', 0)
  call('PEXPIRE', rate, reset - now + MINUTE_MS)
  return cjson.encode({})
elseif args.what == 'registration' then
  local name, owner = string.match(args.credential, '^([^/]*)/?(.*)$')
  local till, why = held_back(name, owner ~= '' and owner or nil)
  if till then return cjson.encode({ wait = till - now, over = 'held', why = why }) end
  local answer = {}
  local function hold(over, at)
    if at and at > (answer.till or 0) then answer = { over = over, till = at } end
  end
  hold('registrations', room(registrations, args.registrations, args.registrations_ms))
  hold('points', room(points, args.posts, args.posts_ms))
  local limit, left, reset = hour()
  if limit and left <= math.ceil(limit * args.reserve) then
    hold('hour', reset)
    if answer.over == 'hour' then answer.limit, answer.left = limit, math.max(left, 0) end
  end
  if answer.till then
    answer.wait, answer.till = answer.till - now, nil
    return cjson.encode(answer)
  end
  if args.registrations > 0 then note(registrations, args.registrations_ms) end
  if args.posts > 0 then note(points, args.posts_ms) end
  if limit then call('HINCRBY', rate, 'spent', 1) end
  return cjson.encode({ wait = 0 })
elseif args.what == 'settle' then
  -- A registration counts from the moment at which GitHub has certainly counted it: a call that was long on its way
  -- must not leave the window early.
  local windows = {
    { registrations, args.registrations, args.registrations_ms },
    { points, args.posts, args.posts_ms },
  }
  for _, window in ipairs(windows) do
    local key, most, span = unpack(window)
    if args.sent and most > 0 then note(key, span) elseif not args.sent then call('ZREM', key, args.runner) end
  end
  return cjson.encode({})
elseif args.what == 'renew' then
  -- It is another at GitHub from now on, or serves nobody any more: what was refused to the one before says nothing of
  -- the next.
  call('DEL', rate, points)
  for _, org in ipairs(args.orgs or {}) do
    -- Of an App, the hour of the organization's owner.
    call('DEL', 'credential:' .. args.credential .. '/' .. string.lower(string.match(org, '^[^/]+')) .. ':rate')
    lift('org:' .. org)
  end
  lift('credential:' .. args.credential)
  local held = 'credential:' .. args.credential .. ':held'
  for _, account in ipairs(call('SMEMBERS', held)) do call('DEL', 'credential:' .. account .. ':limited') end
  call('DEL', held)
  return cjson.encode({})
elseif args.what == 'spare' then
  local asked, minute = 'credential:' .. args.credential .. ':asked', math.floor(now / MINUTE_MS)
  local its, calls_of_it = fields(asked, 'minute', 'calls')
  local of_minute = tonumber(its) == minute and tonumber(calls_of_it) or 0
  local calls = math.min(args.calls, args.calls_per_hour)
  if calls == 0 then return cjson.encode({ wait = args.calls == 0 and 0 or HOUR_MS, over = 'spare' }) end
  if of_minute + args.calls > args.calls_per_minute then
    return cjson.encode({ wait = (minute + 1) * MINUTE_MS - now, over = 'spare' })
  end
  local limit, left, reset = hour()
  if limit and left - args.calls < limit / 2 then
    return cjson.encode({ wait = reset - now, over = 'hour', limit = limit, left = math.max(left, 0) })
  end
  local key = 'credential:' .. args.credential .. ':spare'
  local spent, by_minute, flat = 0, {}, call('HGETALL', key)
  for i = 1, #flat, 2 do
    local at = tonumber(flat[i])
    -- all of that minute is more than an hour ago, or Redis's clock was ahead
    if at * MINUTE_MS <= now - HOUR_MS - MINUTE_MS or at * MINUTE_MS > now then
      call('HDEL', key, flat[i])
    else
      spent = spent + tonumber(flat[i + 1])
      by_minute[#by_minute + 1] = { at, tonumber(flat[i + 1]) }
    end
  end
  local unlimited = not limit and call('EXISTS', 'credential:' .. args.credential .. ':unlimited') == 1
  if spent + calls > args.calls_per_hour and not unlimited then
    table.sort(by_minute, function(a, b) return a[1] < b[1] end)
    for _, one in ipairs(by_minute) do
      spent = spent - one[2]
      if spent + calls <= args.calls_per_hour then
        return cjson.encode({ wait = (one[1] + 1) * MINUTE_MS + HOUR_MS - now, over = 'spare' })
      end
    end
  end
  call('HSET', asked, 'minute', minute, 'calls', of_minute + args.calls)
  call('PEXPIRE', asked, 2 * MINUTE_MS)
  call('HINCRBY', key, minute, calls)
  call('PEXPIRE', key, HOUR_MS + 2 * MINUTE_MS)
  if limit then call('HINCRBY', rate, 'spent', calls) end
  return cjson.encode({ wait = 0 })
elseif args.what == 'uncounted' then
  -- GitHub answered that nothing has changed, which it does not count.
  local key, minute = 'credential:' .. args.credential .. ':spare', math.floor(now / MINUTE_MS)
  if (tonumber(call('HGET', key, minute)) or 0) > 0 then call('HINCRBY', key, minute, -1) end
  if (tonumber(call('HGET', rate, 'spent')) or 0) > 0 then call('HINCRBY', rate, 'spent', -1) end
  return cjson.encode({})
elseif args.what == 'unlimited' then
  call('SET', 'credential:' .. args.credential .. ':unlimited', 1, 'PX', HOUR_MS)
  return cjson.encode({})
end
error('unknown budget request ' .. tostring(args.what), 0)
