-- needs: args, backoff, runner
--
-- fail(runner, fence, made, uncertain, ...): a step of making a runner did not work. Demand is unmet again; what made
-- it fail is held back.
--
-- args: runner, fence, made (something may exist that has to be removed), uncertain (GitHub may have registered it),
--       unregistered (GitHub certainly has not), why,
--       quota (the namespace's is used up), or chain (class | scope | org | profile | credential | global, narrowest
--       first), first, most (ms), needs (made | started), timed (GitHub named the time), patient, again (the first is
--       tried again at once), or none of these

local key = 'runner:' .. args.runner .. ':info'
local state, fence = fields(key, 'state', 'fence')
if fence ~= args.fence or state == 'gone' then return cjson.encode({ stale = true }) end
if args.uncertain then call('HSET', key, 'uncertain', 1) end
if args.unregistered then call('HSET', key, 'deregistered', 1) end
local wait = 0
if args.chain then
  wait = runner_failed(args.runner, args.chain, {
    needs = args.needs, delay = args.first, most = args.most, why = args.why,
    timed = args.timed, patient = args.patient, again = args.again,
  })
end
if args.made or state ~= 'reserved' then -- what was seen to exist is removed in the one way
  begin_removal(args.runner, args.why)
else
  free(args.runner, args.why)
end
if args.quota then
  call('HSET', 'quota:ceiling', 'runners', call('SCARD', 'runners:live'), 'since', now, 'reason', args.why)
end
return cjson.encode({ stale = false, wait = wait })
