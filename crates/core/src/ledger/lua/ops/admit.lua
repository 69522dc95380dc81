-- needs: args, settings, base36, owner, demand, backoff, runner, rename, gate
--
-- admit(n): reserves up to n runners where demand is unmet, within every limit, and rings `jit:provision` for each.
--
-- args: n, seen (epoch as a number, sequence: the highest that the caller has seen)

local SURPLUS_SCAN = 20 -- surplus classes looked at in one call

local aside = 0 -- organizations and classes that this call has put aside

local function reserve(org, class)
  local key = 'class:' .. class
  local idle = call('SCARD', key .. ':idle')
  local job = call('ZRANGE', key .. ':queued', idle, idle)[1]
  follow_rename(key .. ':info')
  local scope, group, profile, labels = fields(key .. ':info', 'scope', 'group', 'profile', 'labels')
  local prefix, epoch = fields('ledger:meta', 'prefix', 'epoch')
  local subjects = {
    'global', 'profile:' .. profile, 'scope:' .. string.lower(scope), 'class:' .. class, unpack(org_subjects(org)),
  }
  local sequence = call('HINCRBY', 'ledger:meta', 'sequence', 1)
  local name = prefix .. '-' .. job .. '-' .. epoch .. base36(sequence)
  call('HSET', 'runner:' .. name .. ':info', 'org', org, 'class', class, 'scope', scope, 'group', group,
    'profile', profile, 'labels', labels, 'job', job, 'state', 'reserved', 'fence', sequence, 'reserved_at', now)
  call('SADD', 'org:' .. org .. ':runners', name)
  call('SADD', 'runners:live', name)
  call('SADD', key .. ':idle', name)
  deadline(name, now + setting('reserve_timeout'))
  call('HSET', 'orgs:served', org, call('HINCRBY', 'ledger:meta', 'admissions', 1))
  mirror(org)
  take_probes(name, subjects)
  refresh_class(class)
  call('XADD', 'jit:provision', '*', 'v', '1', 'runner', name, 'fence', sequence, 'scope', scope)
end

-- Begins to remove the runners that a class has too many: reserved ones first, then the youngest.
local function reap(class)
  local key = 'class:' .. class
  local excess = call('SCARD', key .. ':idle') - wanted(class)
  local idle = {}
  for _, name in ipairs(call('SMEMBERS', key .. ':idle')) do
    local state, reserved_at = fields('runner:' .. name .. ':info', 'state', 'reserved_at')
    idle[#idle + 1] = { name = name, reserved = state == 'reserved', at = tonumber(reserved_at) }
  end
  table.sort(idle, function(a, b)
    if a.reserved ~= b.reserved then return a.reserved end
    if a.at ~= b.at then return a.at > b.at end
    return a.name > b.name
  end)
  for i = 1, excess do begin_removal(idle[i].name, 'surplus: its class has more runners than jobs') end
  return excess
end

-- The class of an organization to serve next. What it meets on the way that is held is put aside.
local function open_class(org)
  while aside < args.n do
    local class = call('ZRANGE', 'org:' .. org .. ':classes', 0, 0)[1]
    local subject = class and first_held(class_subjects(class))
    if not subject then return class end
    park_class(org, class, subject)
    aside = aside + 1
  end
end

wake()
local more = recount()
more = bring_back() or more
more = move_slice() or more

local epoch, sequence = fields('ledger:meta', 'epoch', 'sequence')
if epoch and args.seen then
  local begun = tonumber(epoch, 36)
  if begun < args.seen.epoch or (begun == args.seen.epoch and (tonumber(sequence) or 0) < args.seen.sequence) then
    call('HDEL', 'ledger:meta', 'run_id') -- the data is older than what the caller has seen: restored in place
  end
end
if not look_at_gate().open then return cjson.encode({ gate_closed = true }) end

local admitted, full = 0, false
if not backing_off('global') then
  local maximum, fits = setting('max_total'), ceiling()
  if fits and fits >= maximum then call('DEL', 'quota:ceiling') elseif fits then maximum = fits end
  while admitted + aside < args.n do
    local org = call('ZRANGE', 'orgs:ready', 0, 0)[1]
    if not org or backing_off('global') then break end
    local subject = first_held(org_subjects(org))
    local class = not subject and open_class(org)
    if subject then
      park_org(org, subject)
      aside = aside + 1
    elseif not class or call('SCARD', 'org:' .. org .. ':runners') >= limit_of(org) then
      refresh_org(org) -- all of its classes are held, or its limit was changed by hand
    elseif call('SCARD', 'runners:live') >= maximum then
      full = true
      break
    else
      reserve(org, class)
      admitted = admitted + 1
    end
  end
end

local reaped = 0
local surplus = call('ZRANGE', 'classes:surplus', 0, SURPLUS_SCAN - 1, 'WITHSCORES')
for i = 1, #surplus, 2 do
  local class, since = surplus[i], tonumber(surplus[i + 1])
  follow_rename('class:' .. class .. ':info')
  local org = call('HGET', 'class:' .. class .. ':info', 'org')
  local org_full = call('SCARD', 'org:' .. org .. ':runners') >= limit_of(org) and open_class(org)
  if since + setting('surplus_grace') <= now or full or org_full then reaped = reaped + reap(class) end
end
local seen = { epoch = tonumber(epoch, 36), sequence = tonumber(call('HGET', 'ledger:meta', 'sequence')) or 0 }
return cjson.encode({ admitted = admitted, more = more or admitted + aside >= args.n, reaped = reaped, seen = seen })
