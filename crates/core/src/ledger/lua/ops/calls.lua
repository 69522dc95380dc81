-- needs: args, backoff, held
--
-- calls: each call of GitHub, by any worker, is asked for here before it is sent, and its end is told here.
--
-- `credential:{name}:calls`                ZSET call → when it is over at the latest, so that a dead worker's do not
-- count for ever `credential:{account}:points:{endpoint}` HASH second → points, of the last minute
-- `credential:{name}:held`                 SET  accounts that were held back, for `renew`
--
-- args: what (enter | leave | refused), credential, owner (of an App's installation), enterprise (the owner is one),
-- app, endpoint,
--       call, lease (ms), at_once, points, points_per_minute, in_hour (it is still to be counted in the hour's calls),
--       ending (answered | unanswered | unauthorized | limited | refused), wait (ms), whole, why

local MINUTE, HOUR_MS = 60, 3600000
-- A credential that is refused is tried so often at first, for a quarter of an hour; then ever more seldom.
local REFUSED_MS, REFUSED_MOST_MS, REFUSED_SOON_MS = 25000, 300000, 900000
-- A call that tries whether a limit is over keeps the others waiting for so long at most.
local TRIAL_MS = 30000
-- Who has to wait for the end of another's call looks again after about this time.
local SOON_MS = 250

local name = args.credential
local account = args.owner and name .. '/' .. args.owner or name
local under_way = 'credential:' .. name .. ':calls'

-- Notes that GitHub holds back an account for a time, and has admission leave alone what it serves.
local function hold(of, wait, why, whole)
  local key = 'credential:' .. of .. ':limited'
  local held_until = tonumber(call('HGET', key, 'until')) or 0
  local till = math.max(now + wait, held_until <= now + MOST_HELD_MS and held_until or 0)
  call('HSET', key, 'until', till, 'why', why)
  if whole then call('HSET', key, 'whole', 1) end
  call('HDEL', key, 'probe')
  call('PEXPIRE', key, till - now + HOUR_MS)
  call('SADD', 'credential:' .. name .. ':held', of)
  call('PEXPIRE', 'credential:' .. name .. ':held', 3 * HOUR_MS)
  if whole or args.enterprise then
    back_off('credential:' .. name, till - now, why)
  elseif args.owner then
    local org = call('HGET', 'orgs:known', args.owner)
    if org and call('HGET', 'orgs:credential', org) == name then back_off('org:' .. org, till - now, why) end
  end
end

-- GitHub does not accept the caller. Of an App it is the App's own calls, or one installation's, that are held.
local function refused(why)
  local key = 'credential:' .. account .. ':limited'
  local till, since = fields(key, 'until', 'refused_since')
  if (tonumber(till) or 0) > now and tonumber(till) <= now + MOST_HELD_MS then return end -- under way since before
  local wait = REFUSED_MS
  if not since then
    call('HSET', key, 'refused_since', now)
  elseif now - since >= REFUSED_SOON_MS then
    wait = math.min(REFUSED_MS * 2 ^ math.min(call('HINCRBY', key, 'late', 1), 10), REFUSED_MOST_MS)
  end
  hold(account, wait, why, not args.app)
end

-- When there is room for these points, or nil where there is now.
local function points_fit(key)
  local second = math.floor(now / 1000)
  local sum, seconds, flat = 0, {}, call('HGETALL', key)
  for i = 1, #flat, 2 do
    local at, points = tonumber(flat[i]), tonumber(flat[i + 1])
    if at <= second - MINUTE or at > second then
      call('HDEL', key, flat[i])
    else
      sum = sum + points
      seconds[#seconds + 1] = { at = at, points = points }
    end
  end
  table.sort(seconds, function(a, b) return a.at < b.at end)
  local over
  for _, one in ipairs(seconds) do -- where there is none of the minute, a call may go whatever it costs
    if sum + args.points <= args.points_per_minute then break end
    sum, over = sum - one.points, one.at
  end
  if over then return (over + MINUTE) * 1000 end
  call('HINCRBY', key, second, args.points)
  call('PEXPIRE', key, 2 * MINUTE * 1000)
end

local function soon(wait, why)
  return cjson.encode({ soon = true, wait = wait, why = why })
end

if args.what == 'enter' then
  local till, why = held_back(name, args.owner)
  if till then return cjson.encode({ wait = till - now, why = why }) end
  local rate = 'credential:' .. account .. ':rate'
  local limit, remaining, reset, spent = fields(rate, 'limit', 'remaining', 'reset', 'spent')
  if reset and tonumber(reset) > now and tonumber(remaining) <= (tonumber(spent) or 0) then
    why = 'credential ' .. name .. ' has used up the ' .. limit .. ' calls that GitHub allows it an hour'
    hold(account, tonumber(reset) - now, why, not args.app)
    return cjson.encode({ wait = tonumber(reset) - now, why = why })
  end
  call('ZREMRANGEBYSCORE', under_way, '-inf', now)
  call('ZREMRANGEBYSCORE', under_way, '(' .. string.format('%.0f', now + HOUR_MS), '+inf') -- Redis's clock was ahead
  if call('ZCARD', under_way) >= args.at_once then
    return soon(SOON_MS, args.at_once .. ' calls of credential ' .. name
      .. ' are under way, and GitHub allows no more at once')
  end
  -- A hold is over, and nothing has shown yet that GitHub sees it so: one call goes first.
  local probing = {}
  for _, of in ipairs(limits_at(name, args.owner)) do
    local words, whole, probe = fields(of.key, 'why', 'whole', 'probe')
    if words and (whole or not of.as_a_whole) then
      if probe and tonumber(probe) > now then return soon(SOON_MS, 'one call tries whether this is over: ' .. words) end
      probing[#probing + 1] = of.key
    end
  end
  if args.points > 0 and args.points_per_minute > 0 then
    local at = points_fit('credential:' .. account .. ':points:' .. args.endpoint)
    if at then
      return soon(at - now, 'credential ' .. name .. ' has used its ' .. args.points_per_minute
        .. ' points of this minute for ' .. args.endpoint
        .. ', and GitHub allows no more (GITHUB_POINTS_PER_MINUTE)')
    end
  end
  for _, key in ipairs(probing) do call('HSET', key, 'probe', now + math.min(args.lease, TRIAL_MS)) end
  call('ZADD', under_way, now + args.lease, args.call)
  call('PEXPIRE', under_way, math.max(args.lease, call('PTTL', under_way)))
  if args.in_hour and reset and tonumber(reset) > now then call('HINCRBY', rate, 'spent', 1) end
  return '{}'
elseif args.what == 'leave' then
  call('ZREM', under_way, args.call)
  if args.ending == 'limited' then
    local whole = args.whole or not args.app
    hold(whole and name or account, math.max(args.wait, 1000), args.why, whole)
  elseif args.ending == 'refused' then
    refused(args.why)
  else
    for _, of in ipairs(limits_at(name, args.owner)) do
      local till, whole = fields(of.key, 'until', 'whole')
      if till and tonumber(till) <= now and (whole or not of.as_a_whole) then
        if args.ending == 'answered' then call('DEL', of.key) else call('HDEL', of.key, 'probe') end
      end
    end
  end
  return '{}'
elseif args.what == 'refused' then
  refused(args.why)
  return '{}'
end
error('unknown request about a call ' .. tostring(args.what), 0)
