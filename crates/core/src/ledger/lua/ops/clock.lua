-- needs: args, settings, backoff, runner, job
--
-- clock(worker): a worker is alive. And Redis's clock may have been ahead, and be right again: after a failover to a
-- host with a wrong clock, or a start before the time was set. What was written meanwhile lies in the future, where
-- nothing is due. It is cut to what its kind can be, a slice in each call.
--
-- args: worker (that is alive, if any), anew (look through everything, whether the clock was set back or not)

local SET_BACK_MS = 5000 -- what is less is a clock that is corrected slowly
local FORGET_WORKER_MS = 3600000
local SLICE = 64 -- members of each kind that one call looks at
local MINUTE_MS, HOUR_MS = 60000, 3600000
-- Times of a runner, each of which has been.
local BEEN = {
  'reserved_at', 'claimed_at', 'registered_at', 'created_at', 'started_at', 'busy_at', 'job_done_at', 'adopted_at',
  'removing_at', 'unserved_since',
}

local more = false

-- Sets back the members of a sorted set that lie further ahead than `most`.
local function cut(key, most)
  local ahead = call('ZRANGEBYSCORE', key, '(' .. string.format('%.0f', now + most), '+inf', 'LIMIT', 0, SLICE)
  for _, member in ipairs(ahead) do call('ZADD', key, now + most, member) end
  more = more or #ahead == SLICE
end

local function cut_back_offs()
  for _, subject in ipairs(call('ZRANGEBYSCORE', 'backoffs', '(' .. now, '+inf', 'LIMIT', 0, 16 * SLICE)) do
    local key = subject .. ':backoff'
    local since, till, first, probe = fields(key, 'since', 'until', 'first', 'probe')
    since, till, first = tonumber(since), tonumber(till), tonumber(first)
    if since and since > now then -- its wait begins now
      call('HSET', key, 'since', now, 'until', now + till - since, 'first', math.min(first or now, now))
      call('ZADD', 'backoffs', now + till - since, subject)
    end
    if probe then
      local most = now + (PROBE_MS[kind_of(subject)] or PROBE_MOST_MS)
      if tonumber(call('ZSCORE', 'backoffs', subject)) > most then call('ZADD', 'backoffs', most, subject) end
    end
  end
end

-- The longest time to a deadline that a runner in this state can have, in ms.
local function longest(state)
  if state == 'created' then return math.max(setting('start_timeout'), setting('idle_timeout')) end
  if state == 'busy' then
    return math.max(setting('question_interval'), setting('busy_recheck'), setting('end_timeout'))
  end
  return 10 * MINUTE_MS
end

local function cut_runner(name)
  local key = 'runner:' .. name .. ':info'
  local times = call('HMGET', key, unpack(BEEN))
  for i, field in ipairs(BEEN) do
    if times[i] and tonumber(times[i]) > now then call('HSET', key, field, now) end
  end
  local state, hold_until = fields(key, 'state', 'hold_until')
  if hold_until and tonumber(hold_until) > now + 10 * MINUTE_MS then call('HSET', key, 'hold_until', now) end
  local at, most = call('ZSCORE', 'runners:deadlines', name), longest(state)
  if at and tonumber(at) > now + most then deadline(name, now + most) end
end

local function cut_question(job, at)
  local key = 'job:' .. job .. ':info'
  local state, held_until, unreadable = fields(key, 'state', 'held_until', 'unreadable')
  local most = SELDOM_CAP * setting('question_interval') -- as of one that waits, or has waited, for an approval
  if held_until then
    most = MISFIT_CAP * setting('misfit_hold')
    if tonumber(held_until) > now + most then call('HSET', key, 'held_until', now + most) end
  elseif state == 'in_question' and not unreadable then
    most = 2 * MINUTE_MS
  elseif state == 'in_progress' and not unreadable then
    most = setting('question_interval')
  end
  if at > now + most then call('ZADD', 'jobs:questions', now + most, job) end
end

if args.worker then call('ZADD', 'workers:alive', now, args.worker) end
call('ZREMRANGEBYSCORE', 'workers:alive', '-inf', now - FORGET_WORKER_MS)
local before, cursors = fields('ledger:meta', 'clock', 'cutting')
call('HSET', 'ledger:meta', 'clock', now)
local was_ahead = before and tonumber(before) - now > SET_BACK_MS
if was_ahead or args.anew then cursors = '0 0' end
if not cursors then return '{}' end

cut('workers:alive', 0)
cut('places', 0)
cut('owners:heard', 0)
cut('conditions', 0)
cut('classes:surplus', 0)
cut('recovery:accounts', HOUR_MS)
cut('registrations:uncertain', 12 * setting('uncertain_first'))
cut_back_offs()
local since = call('HGET', 'quota:ceiling', 'since')
if since and tonumber(since) > now then call('HSET', 'quota:ceiling', 'since', now) end
for _, field in ipairs({ 'last_start', 'replaced_at' }) do
  local at = call('HGET', 'ledger:meta', field)
  if at and tonumber(at) > now then call('HSET', 'ledger:meta', field, now) end
end
local of_runners, of_questions = string.match(cursors, '^(%S+) (%S+)$')
if of_runners ~= 'end' then
  local slice = call('SSCAN', 'runners:live', of_runners, 'COUNT', SLICE)
  for _, name in ipairs(slice[2]) do cut_runner(name) end
  of_runners = slice[1] == '0' and 'end' or slice[1]
end
if of_questions ~= 'end' then
  local slice = call('ZSCAN', 'jobs:questions', of_questions, 'COUNT', SLICE)
  for i = 1, #slice[2], 2 do cut_question(slice[2][i], tonumber(slice[2][i + 1])) end
  of_questions = slice[1] == '0' and 'end' or slice[1]
end
more = more or of_runners ~= 'end' or of_questions ~= 'end'
if more then
  call('HSET', 'ledger:meta', 'cutting', of_runners .. ' ' .. of_questions)
else
  call('HDEL', 'ledger:meta', 'cutting')
end
return cjson.encode({ by = was_ahead and tonumber(before) - now or nil, more = more })
