-- needs: args, settings, backoff, runner
--
-- started, note, release, rejected, outdated, busy, remove, force, postpone, absent: what was seen of a runner, or is
-- wanted of it.
--
-- args: what, runner, why (also the detail that `note` notes), deregistered (GitHub confirmed that its registration is
-- gone: `deleted`
--       before it had any job, or `absent`), github_id (where a look-up by name found it), unserved (of `postpone`:
--       nobody may call GitHub for its owner any more)

-- Where nobody serves an owner any more, GitHub cannot be asked first for ever: after this time its runners end, those
-- that have been at work later.
local UNSERVED_MS, UNSERVED_BUSY_MS = 900000, 21600000

local key = 'runner:' .. args.runner .. ':info'
local state = call('HGET', key, 'state')
if not state or state == 'gone' then return cjson.encode({ state = state or 'unknown', changed = false }) end

local changed = true
if args.deregistered then call('HSET', key, 'deregistered', 1) end
if args.deregistered == 'deleted' then call('HSET', key, 'unused', 1) end
if args.github_id then call('HSETNX', key, 'github_id', args.github_id) end
if args.what == 'started' then
  changed = started(args.runner)
elseif args.what == 'note' then
  call('HSET', key, 'detail', args.why)
elseif args.what == 'release' then
  ended(args.runner, args.why)
elseif args.what == 'rejected' then -- its program never ran: its node did not take its pod
  ended(args.runner, args.why, true)
-- it has ended, since GitHub refuses its version: no further end is needed to know it
elseif args.what == 'outdated' then
  local why = 'its runner is too old for GitHub (code 7): update the image'
  local first = setting('start_backoff')
  runner_failed(args.runner, POD, { needs = 'work', delay = first, most = first * 16, why = why })
  free(args.runner, why)
elseif args.what == 'busy' then -- GitHub refused to delete it: it works, and lives
  call('HDEL', key, 'why')
  call('HSET', key, 'state', 'busy')
  busy(args.runner, nil)
  deadline(args.runner, now + setting('busy_recheck'))
elseif args.what == 'remove' then
  changed = begin_removal(args.runner, args.why)
elseif args.what == 'force' then -- an operator's order: its pod ends, whatever GitHub says or does not say
  call('HSET', key, 'forced', 1)
  if state == 'removing' then deadline(args.runner, now) else begin_removal(args.runner, args.why) end
-- GitHub does not say, or its pod cannot be ended: again after 2, 4, … 20 s and up to a quarter more
elseif args.what == 'postpone' then
  changed = state == 'removing'
  if changed then
    local wait = math.min(1000 * 2 ^ math.min(call('HINCRBY', key, 'removal_tries', 1), 5), 20000)
    deadline(args.runner, now + wait + jitter(args.runner, wait / 4))
    if args.unserved then
      call('HSETNX', key, 'unserved_since', now)
      local since, busy_at = fields(key, 'unserved_since', 'busy_at')
      if now - since >= (busy_at and UNSERVED_BUSY_MS or UNSERVED_MS) then
        call('HSET', key, 'forced', 1, 'why', 'nobody serves its owner any more')
        deadline(args.runner, now)
      end
    else
      call('HDEL', key, 'unserved_since')
    end
  end
-- no such pod, says a consistent read; a create that is still in flight may make it yet
elseif args.what == 'absent' then
  local hold_until = tonumber(call('HGET', key, 'hold_until'))
  if state == 'reserved' then
    changed = false
  elseif state == 'removing' and hold_until and hold_until > now then
    deadline(args.runner, hold_until)
    changed = false
  else
    free(args.runner, args.why)
  end
end
local woken = call('EXISTS', 'backoffs:waking') == 1
return cjson.encode({ state = call('HGET', key, 'state'), changed = changed, woken = woken })
