-- needs: args, settings, demand, backoff, runner, gate
--
-- claim, registered, created: the steps of making one runner. Each checks the fence, so that a worker that wakes up
-- late learns that the runner is not its own any more, and renews the deadline to the time-out of the step that follows
-- plus a minute.
--
-- A reservation that was made before what it needs began to back off is given back when it is claimed: nothing is made
-- of it, and demand makes another when that is over.
--
-- While the gate is closed, nothing is claimed: in data that was rolled back, a reservation may stand beside runners
-- that the data does not know. The reconcile that opens the gate gives it back.
--
-- A claim whose answer was lost comes again with its number, and is answered again.
--
-- args: step (claim | registered | created), runner, fence, timeout (ms, of the step that follows), github_id, worker,
-- credential (that
--       serves the organization), alone (no other does), create_timeout (ms, of the create alone), claim (the number
--       of this claim among its worker's), places (profile -> where its runners run)

local GRACE_MS = 60000

-- Notes which credential serves an organization, so that one that backs off holds back all that it serves. None where
-- several do.
local function serve(org, credential)
  local before = call('HGET', 'orgs:credential', org) or nil
  if before == credential then return end
  if before then call('SREM', 'credential:' .. before .. ':orgs', org) end
  if credential then
    call('HSET', 'orgs:credential', org, credential)
    call('SADD', 'credential:' .. credential .. ':orgs', org)
  else
    call('HDEL', 'orgs:credential', org)
  end
  local aside = call('HGET', 'orgs:parked', org)
  if aside then unpark(aside, org) end -- what it was put aside for may not concern it any more
  refresh_org(org)
end

local key = 'runner:' .. args.runner .. ':info'
local state, fence, claimed_at, claim, worker = fields(key, 'state', 'fence', 'claimed_at', 'claim', 'worker')
if not state or fence ~= args.fence or state == 'removing' or state == 'gone' then
  return cjson.encode({ stale = true })
end

if args.step == 'claim' then
  local again = claimed_at and worker == args.worker and claim == args.claim
  if state ~= 'reserved' or (claimed_at and not again) then return cjson.encode({ stale = true }) end
  local org, class, scope, group, profile, labels, job =
    fields(key, 'org', 'class', 'scope', 'group', 'profile', 'labels', 'job')
  if not again then
    if not look_at_gate().open then return cjson.encode({ stale = true }) end
    serve(org, args.alone and args.credential or nil)
    local needs = { 'global', 'org:' .. org, unpack(class_subjects(class)) }
    if args.alone then needs[#needs + 1] = 'credential:' .. args.credential end
    for i, at in ipairs(call('ZMSCORE', 'backoffs', unpack(needs))) do
      if at and call('HGET', needs[i] .. ':backoff', 'probe') ~= args.runner then
        free(args.runner, needs[i] .. ' began to back off before it was made')
        return cjson.encode({ stale = true })
      end
    end
  end
  call('HSET', key, 'claimed_at', now, 'worker', args.worker, 'claim', args.claim, 'credential', args.credential,
    'create_timeout', args.create_timeout)
  local place = args.places and args.places[profile]
  if place then call('HSET', key, 'place', place) end
  deadline(args.runner, now + args.timeout + GRACE_MS)
  return cjson.encode({
    name = args.runner, org = org, class = class, scope = scope, group = group, profile = profile, labels = labels,
    job = job,
  })
elseif args.step == 'registered' then
  call('HSET', key, 'registered_at', now, 'github_id', args.github_id)
  call('HDEL', key, 'uncertain', 'create_timeout', 'claim') -- its pod is there: no create is in flight
  if state == 'reserved' then deadline(args.runner, now + args.timeout + GRACE_MS) end
elseif args.step == 'created' then
  call('HSET', key, 'created_at', now)
  if state == 'reserved' then
    call('HSET', key, 'state', 'created')
    local started_at = call('HGET', key, 'started_at') -- its watch can be faster than its maker
    deadline(args.runner, now + setting(started_at and 'idle_check' or 'start_timeout'))
  end
  succeeded(args.runner, 'made')
  return cjson.encode({ stale = false, woken = call('EXISTS', 'backoffs:waking') == 1 })
end
return cjson.encode({ stale = false })
