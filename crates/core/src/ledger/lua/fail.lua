-- fail(runner, fence, made, uncertain, back_off): a step of making a runner did not work. Demand is unmet again; what made it fail backs off.
--
-- args: runner, fence, made (something may exist that has to be removed), uncertain (GitHub may have registered it),
--       unregistered (GitHub certainly has not), why,
--       subject (class | org | profile | credential | global; namespace: its quota is used up; or none), delay, cap (ms)

local key = 'runner:' .. args.runner .. ':info'
local state, fence, class, org, profile, credential = fields(key, 'state', 'fence', 'class', 'org', 'profile', 'credential')
if fence ~= args.fence or state == 'gone' then return cjson.encode({ stale = true }) end
if args.uncertain then call('HSET', key, 'uncertain', 1) end
if args.unregistered then call('HSET', key, 'deregistered', 1) end
local wait = 0
if args.subject and args.subject ~= 'namespace' then
  local subjects = {
    class = 'class:' .. class, org = 'org:' .. org, profile = 'profile:' .. profile, global = 'global',
    credential = credential and 'credential:' .. credential or 'global', -- a release without credentials claimed it
  }
  wait = back_off(subjects[args.subject], args.delay, args.cap, args.why)
end
if args.made or state ~= 'reserved' then -- what was seen to exist is removed in the one way
  begin_removal(args.runner, args.why)
else
  free(args.runner, args.why)
end
if args.subject == 'namespace' then
  call('HSET', 'quota:ceiling', 'runners', call('SCARD', 'runners:live'), 'since', now, 'reason', args.why)
end
return cjson.encode({ stale = false, wait = wait })
