-- reconcile(snapshot): compares the ledger with the runners that a consistent list found, and opens the epoch gate.
--
-- Releases what was created before the list began and is not in it; never a reservation, whose pod may be on its way. Adopts what the
-- ledger does not know: as idle, or as one that is removed where its deletion is under way, since it counts until it is gone. Sets the mirrors and the order of the organizations anew from what admission trusts.
--
-- args: began (ms, by Redis's clock, before the list), runners ([{name, ended, running, terminating, spec, class}]), seen (the highest epoch, as
--       a number, that the caller has seen), run_id (tests only)

local stop, released, adopted = {}, 0, 0
local listed = {}

for _, seen in ipairs(args.runners or {}) do
  local name, key = seen.name, 'runner:' .. seen.name .. ':info'
  listed[name] = true
  local state, gone_at = fields(key, 'state', 'gone_at')
  if state == 'gone' then
    if not seen.terminating and (seen.ended or tonumber(gone_at) < args.began) then stop[#stop + 1] = name end
  elseif state then
    if seen.ended then
      free(name, 'ended')
      released = released + 1
      stop[#stop + 1] = name
    elseif seen.running and state == 'created' then
      started(name)
    end
  elseif seen.ended or not seen.spec then
    if not seen.terminating then stop[#stop + 1] = name end
  else
    local spec = seen.spec
    local org = learn(spec.org)
    spec.org = org
    call('HSET', key, 'org', org, 'class', seen.class, 'scope', spec.scope, 'group', spec.group, 'profile', spec.profile, 'labels', spec.labels,
      'job', spec.job, 'state', seen.terminating and 'removing' or 'created', 'fence', call('HINCRBY', 'ledger:meta', 'sequence', 1), 'reserved_at', now, 'created_at', now,
      'started_at', now, 'adopted_at', now, 'uncertain', 1)
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

for _, name in ipairs(call('SMEMBERS', 'runners:live')) do
  if not listed[name] then
    local state, created_at, busy_at, removing_at = fields('runner:' .. name .. ':info', 'state', 'created_at', 'busy_at', 'removing_at')
    local since = tonumber(created_at)
    if not since and state == 'busy' then since = tonumber(busy_at) end
    if state ~= 'reserved' and since and since < args.began then
      free(name, 'gone')
      released = released + 1
    end
  end
end

local corrected = 0
for _, org in ipairs(call('HVALS', 'orgs:known')) do
  local mirrored = tonumber(call('GET', 'org:' .. org .. ':running')) or 0
  if mirrored ~= call('SCARD', 'org:' .. org .. ':runners') then
    corrected = corrected + 1
  end
  mirror(org)
  refresh_org(org)
end

-- Names are never used again: whenever the data may have been lost or rolled back, a new epoch begins, later than any before.
local run_id = args.run_id or string.match(call('INFO', 'server'), 'run_id:(%w+)')
local epoch, known_run_id = fields('ledger:meta', 'epoch', 'run_id')
local opened = not epoch or known_run_id ~= run_id
if opened then
  local seconds = math.floor(now / 1000)
  if epoch then seconds = math.max(seconds, tonumber(epoch, 36) + 1) end
  if args.seen then seconds = math.max(seconds, args.seen + 1) end
  local text = ''
  while seconds > 0 do
    local digit = seconds % 36
    text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
    seconds = (seconds - digit) / 36
  end
  call('HSET', 'ledger:meta', 'epoch', text, 'run_id', run_id)
end
call('HSET', 'ledger:meta', 'reconciled_at', now)

local result = { released = released, adopted = adopted, corrected = corrected, opened = opened }
if #stop > 0 then result.stop = stop end
return cjson.encode(result)
