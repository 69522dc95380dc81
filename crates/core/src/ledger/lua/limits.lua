-- set_limits, pause, resume: what operators decide about organizations. Takes effect at the next admission, upward and downward.
--
-- args: limits ([org, limit or false] pairs), replace (drop the limits that are not named), pause (org, reason, until), resume (org)

if args.replace then
  for _, org in ipairs(call('HKEYS', 'org_limits')) do
    call('HDEL', 'org_limits', org)
    refresh_org(org)
  end
end
local previous = {}
for i, pair in ipairs(args.limits or {}) do
  local org = known(pair[1])
  previous[i] = limit_of(org)
  if pair[2] then call('HSET', 'org_limits', org, pair[2]) else call('HDEL', 'org_limits', org) end
  refresh_org(org)
end
if args.pause then
  local org = known(args.pause.org)
  call('HSET', 'orgs:paused', org, cjson.encode({ reason = args.pause.reason, until_ms = args.pause.until_ms, since = now }))
  if args.pause.until_ms then call('ZADD', 'backoffs', args.pause.until_ms, 'pause:' .. org) else call('ZREM', 'backoffs', 'pause:' .. org) end
  refresh_org(org)
end
if args.resume then
  local org = known(args.resume)
  call('HDEL', 'orgs:paused', org)
  call('ZREM', 'backoffs', 'pause:' .. org)
  refresh_org(org)
end
if #previous == 0 then return '{}' end
return cjson.encode({ previous = previous })
