-- needs: args, owner, demand, backoff, runner
--
-- set_limits, pause, resume, retry, give_up: what operators decide. Takes effect at the next admission, upward and
-- downward.
--
-- args: limits ([org, limit or false] pairs), pause (org, reason, until), resume (org), retry (job), give_up (place,
-- runners: live ones)

local standing
-- The spelling under which an organization stands here: GitHub's, or, until that is known, the one that an operator
-- used first.
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
  local pause = { reason = args.pause.reason, until_ms = args.pause.until_ms, since = now }
  call('HSET', 'orgs:paused', org, cjson.encode(pause))
  if args.pause.until_ms then
    call('ZADD', 'backoffs', args.pause.until_ms, 'pause:' .. org)
  else
    call('ZREM', 'backoffs', 'pause:' .. org)
  end
  refresh_org(org)
end
if args.resume then
  local org = spelling(args.resume)
  call('HDEL', 'orgs:paused', org)
  call('ZREM', 'backoffs', 'pause:' .. org)
  refresh_org(org)
end
-- Retry: ends the waits that hold a queued job back, so that one runner tries it now. The rows of failures stay. A time
-- that GitHub named, and a try that is under way, stay too.
if args.retry then
  follow_rename('job:' .. args.retry .. ':info')
  local state, org, class = fields('job:' .. args.retry .. ':info', 'state', 'org', 'class')
  local retried = {}
  if state == 'queued' and class then
    for _, subjects in ipairs({ { 'global' }, org_subjects(org), class_subjects(class) }) do
      for _, subject in ipairs(subjects) do
        local timed, probe = fields(subject .. ':backoff', 'timed', 'probe')
        if backing_off(subject) and not timed and not probe then
          call('ZREM', 'backoffs', subject)
          open(subject)
          retried[#retried + 1] = subject
        end
      end
    end
  end
  return cjson.encode({ state = state or 'unknown', retried = #retried > 0 and retried or nil })
end
if args.give_up then
  local freed = 0
  for _, name in ipairs(args.give_up.runners) do
    local state, place = fields('runner:' .. name .. ':info', 'state', 'place')
    if state and state ~= 'gone' and place == args.give_up.place then
      free(name, 'the place where it ran was given up')
      freed = freed + 1
    end
  end
  call('ZREM', 'places', args.give_up.place)
  return cjson.encode({ freed = freed })
end
if #previous == 0 then return '{}' end
return cjson.encode({ previous = previous })
