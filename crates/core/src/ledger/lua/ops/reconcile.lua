-- needs: args, settings, base36, owner, demand, runner, gate
--
-- reconcile(snapshot): compares the ledger with the runners that a consistent list found, a slice in each call, and
-- opens the epoch gate in the last.
--
-- Releases what was created before the list began, at a place that was listed, and is not in the list; never a
-- reservation, whose pod may be on its way, unless nobody has claimed it and the gate is to open: then it stands beside
-- runners that the data did not know when it was made. Adopts what the ledger does not know: as idle, or as one that is
-- removed where its deletion is under way, since it counts until it is gone. Sets the mirrors and the order of the
-- organizations anew from what admission trusts.
--
-- args: began (ms, by Redis's clock, before the list), runners (of the list: [{name, ended, rejected, detail, running,
--       terminating, spec, class}]), places (profile -> where its runners run), missing (live runners, by their names,
--       that are not in the list), here (the places that were listed), recount (begin | go on), open, in_flight (ms in
--       which the pod of a claim comes, if at all), seen (the highest epoch, as a number, that the caller has seen)

local stop, released, adopted = {}, 0, 0

for _, seen in ipairs(args.runners or {}) do
  local name, key = seen.name, 'runner:' .. seen.name .. ':info'
  local state, gone_at = fields(key, 'state', 'gone_at')
  if state == 'gone' then
    gone_at = tonumber(gone_at)
    if seen.ended and not seen.terminating then
      stop[#stop + 1] = { name = name }
    elseif not seen.terminating and (gone_at < args.began or gone_at > now) then
      -- A runner that is not counted may be at work all the same: GitHub is asked first.
      local scope, github_id, deregistered, started_at = fields(key, 'scope', 'github_id', 'deregistered', 'started_at')
      stop[#stop + 1] = { name = name, removal = {
        name = name, scope = scope, github_id = github_id or nil, deregistered = deregistered and true or false,
        uncertain = true, started = (seen.running or started_at) and true or false,
      } }
    end
  elseif state then
    if seen.ended then
      ended(name, seen.detail or 'ended', seen.rejected)
      released = released + 1
      stop[#stop + 1] = { name = name }
    else
      -- Rolled back to before it was taken up: its pod is there, so it is not simply dropped.
      if state == 'reserved' then call('HSETNX', key, 'claimed_at', now) end
      if seen.running and state == 'created' then started(name) end
    end
  elseif seen.ended or not seen.spec then
    if not seen.terminating then stop[#stop + 1] = { name = name } end
  else
    local spec = seen.spec
    local org = learn(spec.org)
    spec.org = org
    local fence = call('HINCRBY', 'ledger:meta', 'sequence', 1)
    call('HSET', key, 'org', org, 'class', seen.class, 'scope', spec.scope, 'group', spec.group,
      'profile', spec.profile, 'labels', spec.labels, 'job', spec.job,
      'state', seen.terminating and 'removing' or 'created', 'fence', fence,
      'reserved_at', now, 'created_at', now, 'started_at', now, 'adopted_at', now, 'uncertain', 1)
    local place = args.places and args.places[spec.profile]
    if place then call('HSET', key, 'place', place) end
    call('SADD', 'org:' .. org .. ':runners', name)
    call('SADD', 'runners:live', name)
    if seen.terminating then
      call('HSET', key, 'removing_at', now, 'why', 'its deletion was under way')
      deadline(name, now)
    else
      ensure_class(seen.class, spec)
      call('SADD', 'class:' .. seen.class .. ':idle', name)
      deadline(name, now + setting('idle_check'))
    end
    mirror(org)
    refresh_class(seen.class)
    adopted = adopted + 1
  end
end

-- A pod that was claimed before the loss may be in no list yet. A list that begins later than this has all such pods.
-- Without an epoch and without any runner, as on a first start, nothing is on its way.
local function settled(gate)
  local nothing = not gate.epoch and call('SCARD', 'runners:live') == 0
  return gate.lost_at + (nothing and 0 or args.in_flight)
end

local gate = (args.missing or args.open) and look_at_gate()

for _, name in ipairs(args.missing or {}) do
  local key = 'runner:' .. name .. ':info'
  local state, claimed_at, created_at, busy_at = fields(key, 'state', 'claimed_at', 'created_at', 'busy_at')
  local since = tonumber(created_at)
  if not since and state == 'busy' then since = tonumber(busy_at) end
  if state ~= 'reserved' and state ~= 'gone' and since and since < args.began and is_at(key, args.here) then
    ended(name, 'gone')
    released = released + 1
  elseif state == 'reserved' and not claimed_at and not gate.open and args.began >= settled(gate) then
    free(name, 'reserved in data that was lost or rolled back')
    released = released + 1
  end
end

local result = { released = released, adopted = adopted }
if #stop > 0 then result.stop = stop end
if args.recount then
  if args.recount == 'begin' then begin_recount() end
  result.more, result.corrected = recount()
end
if not args.open then return cjson.encode(result) end

if not gate.open then
  if args.began < settled(gate) then
    result.opens_in = math.max(settled(gate) - now, 1)
    return cjson.encode(result)
  end
  -- Names are never used again: whenever the data may have been lost or rolled back, a new epoch begins, later than any
  -- before.
  local seconds = math.floor(now / 1000)
  if gate.epoch then seconds = math.max(seconds, tonumber(gate.epoch, 36) + 1) end
  if args.seen then seconds = math.max(seconds, args.seen + 1) end
  call('HSET', 'ledger:meta', 'epoch', base36(seconds), 'run_id', gate.run_id)
  call('HDEL', 'ledger:meta', 'lost_at', 'lost_run_id')
end
call('HSET', 'ledger:meta', 'reconciled_at', now)
for _, place in ipairs(args.here or {}) do call('ZADD', 'places', now, place) end
result.opened = not gate.open
return cjson.encode(result)
