-- set_limits, pause, resume: what operators decide about organizations. Takes effect at the next admission, upward and downward.
--
-- args: limits ([org, limit or false] pairs), pause (org, reason, until), resume (org)

local standing
-- The spelling under which an organization stands here: GitHub's, or, until that is known, the one that an operator used first.
local function spelling(org)
  local login = call('HGET', 'orgs:known', string.lower(org))
  if login then return login end
  if not standing then
    standing = {}
    for _, key in ipairs({ 'org_limits', 'orgs:paused' }) do
      for _, spelt in ipairs(call('HKEYS', key)) do standing[string.lower(spelt)] = spelt end
    end
  end
  standing[string.lower(org)] = standing[string.lower(org)] or org
  return standing[string.lower(org)]
end

local previous = {}
for i, pair in ipairs(args.limits or {}) do
  pair[1] = spelling(pair[1])
  previous[i] = limit_of(pair[1])
end
for _, pair in ipairs(args.limits or {}) do
  local org, limit = pair[1], pair[2]
  if limit then call('HSET', 'org_limits', org, limit) else call('HDEL', 'org_limits', org) end
  refresh_org(org)
end
if args.pause then
  local org = spelling(args.pause.org)
  call('HSET', 'orgs:paused', org, cjson.encode({ reason = args.pause.reason, until_ms = args.pause.until_ms, since = now }))
  if args.pause.until_ms then call('ZADD', 'backoffs', args.pause.until_ms, 'pause:' .. org) else call('ZREM', 'backoffs', 'pause:' .. org) end
  refresh_org(org)
end
if args.resume then
  local org = spelling(args.resume)
  call('HDEL', 'orgs:paused', org)
  call('ZREM', 'backoffs', 'pause:' .. org)
  refresh_org(org)
end
if #previous == 0 then return '{}' end
return cjson.encode({ previous = previous })
