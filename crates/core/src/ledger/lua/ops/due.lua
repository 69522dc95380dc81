-- needs: args, settings, owner, backoff, held, runner, job
--
-- due(n, lease): the work whose time has come, leased to the caller for `lease` ms: runners to remove, jobs to ask
-- GitHub about, registrations to look up. What is not finished by then is handed out again. What GitHub holds back is
-- not handed out: it is due later.
--
-- args: n (of each kind), lease, here (the places whose pods the caller can end)

local UNCERTAIN_TRIES = 3 -- at 1, 3 and 15 minutes
-- What a pod says whose image cannot be had: no class of its profile gets one that starts.
local NO_IMAGE = { ImagePullBackOff = true, ErrImagePull = true, ErrImageNeverPull = true, InvalidImageName = true }

-- A credential that GitHub refuses for so long is refused for good; a runner that was at work is given longer, since
-- its job may go on.
local REFUSED_MS, REFUSED_BUSY_MS = 3600000, 21600000

local ELSEWHERE = 4 -- times n: so many are looked through for those whose pods are here

-- Work that GitHub holds back is looked at again after this time at the latest.
local RECHECK_MS = 60000

local removals, questions, registrations, held = {}, {}, {}, 0
local asked = {} -- classes whose oldest jobs this call has asked about: once is enough for all their idle runners

-- A runner that had no work for `idle_timeout`. Where its class has demand, it does not fit: GitHub does not match the
-- two, whatever we believe. The oldest job that it should have run is held back, and its class gets one runner at a
-- time until one gets work, so that it cannot use up its organization's limit. Where no runner anywhere has had work
-- for that long, GitHub gives out none: then one is replaced in that time.
local function stayed_idle(name, class)
  local key = 'class:' .. class
  local oldest = call('ZRANGE', key .. ':queued', 0, 0)[1]
  if not oldest then return 'it stayed idle' end
  if call('HEXISTS', key .. ':info', 'misfit') == 1 and call('SCARD', key .. ':idle') > 1 then
    return 'it stayed idle, and its class gets one at a time'
  end
  local idle_timeout = setting('idle_timeout')
  local last_start, replaced_at = fields('ledger:meta', 'last_start', 'replaced_at')
  local within = function(at) return at and tonumber(at) <= now and now < tonumber(at) + idle_timeout end
  if not within(last_start) and within(replaced_at) then
    deadline(name, now + idle_timeout)
    return nil
  end
  call('HSET', 'ledger:meta', 'replaced_at', now)
  call('HSET', key .. ':info', 'misfit', now)
  follow_rename('job:' .. oldest .. ':info')
  -- below 64 bytes, or the hash takes twice the memory
  hold_back(oldest, 'held back: a runner stayed idle while it waited')
  return 'it did not fit: it stayed idle while its class had jobs'
end

-- Whether GitHub itself has said that a runner's job does not run any more. That we know nothing of it, or have given
-- it up, ends no runner at work.
local function has_left(key, job)
  local state, conclusion = fields('job:' .. job .. ':info', 'state', 'conclusion')
  return call('HEXISTS', key, 'job_done_at') == 1 or (state and state ~= 'in_progress' and conclusion ~= 'gone')
end

local function overdue(name, state)
  local key = 'runner:' .. name .. ':info'
  local started_at, class, detail, job = fields(key, 'started_at', 'class', 'detail', 'running_job')
  if state == 'reserved' then return 'making it did not finish in time' end
  if state == 'created' and not started_at then
    local no_image = detail and NO_IMAGE[string.match(detail, '^%a+')]
    local first = setting('start_backoff')
    runner_failed(name, no_image and { 'profile' } or POD, {
      needs = 'started', delay = first, most = first * 16,
      why = 'its last runner did not start' .. (detail and ': ' .. detail or ' in time'),
    })
    return 'it did not start in time' .. (detail and ': ' .. detail or '')
  end
  if state == 'busy' then
    if not job or has_left(key, job) then return 'it did not end after its job' end
    deadline(name, now + setting('question_interval')) -- at work still, as far as is known; its job is asked about
    return nil
  end
  -- Idle. First ask about the oldest jobs of its class, which may be over without a word; only then replace it.
  local idle_until = tonumber(started_at) + setting('idle_timeout')
  if now < idle_until then
    if not asked[class] then
      asked[class] = true
      local idle = call('SCARD', 'class:' .. class .. ':idle')
      for _, queued in ipairs(call('ZRANGE', 'class:' .. class .. ':queued', 0, idle - 1)) do
        -- else it is asked about at its own time
        if call('HEXISTS', 'job:' .. queued .. ':info', 'unreadable') == 0 then ask(queued, now) end
      end
    end
    deadline(name, idle_until)
    return nil
  end
  return stayed_idle(name, class)
end

-- When work of an organization that needs GitHub's answer at this owner is looked at again, where a limit or a refusal
-- of GitHub's holds it back: a while after the end of that, each at its own time, and after a minute in any case, since
-- a new credential lifts it. Nil where none does.
local function later(org, owner, what)
  local credential = org and call('HGET', 'orgs:credential', org)
  local till = credential and held_back(credential, owner)
  if not till then return nil end
  held = held + 1
  local wait = math.min(till - now, RECHECK_MS)
  return now + wait + math.ceil(wait * 0.1 * tonumber(string.sub(redis.sha1hex(what), 1, 4), 16) / 65535)
end

local function owner_of(scope)
  return string.match(scope, '^%a+/([^/]+)')
end

-- Whether GitHub has refused the credential for so long that a runner of this owner is not waited for any more.
local function refused_for_good(key, org, owner)
  local credential = call('HGET', 'orgs:credential', org)
  if not (credential and held_back(credential, owner)) then return false end
  local bound = call('HEXISTS', key, 'busy_at') == 1 and REFUSED_BUSY_MS or REFUSED_MS
  for _, of in ipairs(limits_at(credential, owner)) do
    local since, whole = fields(of.key, 'refused_since', 'whole')
    if since and (whole or not of.as_a_whole) and now - since >= bound then return true end
  end
  return false
end

for _, name in ipairs(call('ZRANGEBYSCORE', 'runners:deadlines', '-inf', now, 'LIMIT', 0, args.n * ELSEWHERE)) do
  if #removals >= args.n then break end
  local key = 'runner:' .. name .. ':info'
  local state = call('HGET', key, 'state')
  if not state or state == 'gone' then
    call('ZREM', 'runners:deadlines', name)
  elseif state ~= 'removing' then
    local why = overdue(name, state)
    if why then begin_removal(name, why) end
  end
  local scope, github_id, uncertain, deregistered, registering, started_at, org, forced =
    fields(key, 'scope', 'github_id', 'uncertain', 'deregistered', 'claimed_at', 'started_at', 'org', 'forced')
  local removing = call('HGET', key, 'state') == 'removing'
  if removing and not forced and refused_for_good(key, org, owner_of(scope)) then
    call('HSET', key, 'forced', 1, 'why', 'GitHub refuses its owner\'s credential')
    forced = true
  end
  local asks = not forced and (github_id or ((uncertain or registering) and not deregistered))
  local here = is_at(key, args.here)
  local at = removing and here and asks and later(org, owner_of(scope), name)
  if at then
    deadline(name, at)
  elseif removing and here then
    deadline(name, now + args.lease)
    removals[#removals + 1] = {
      name = name, scope = scope, github_id = github_id or nil,
      deregistered = (deregistered or forced) and true or false,
      uncertain = (uncertain or registering) and true or false, started = started_at and true or false,
    }
  end
end

for _, job in ipairs(call('ZRANGEBYSCORE', 'jobs:questions', '-inf', now, 'LIMIT', 0, args.n)) do
  follow_rename('job:' .. job .. ':info')
  local repo, rev, state, org = fields('job:' .. job .. ':info', 'repo', 'rev', 'state', 'org')
  if not state or state == 'completed' then
    call('ZREM', 'jobs:questions', job)
  else
    local at = later(org, string.match(repo, '^[^/]+'), job)
    call('ZADD', 'jobs:questions', at or now + args.lease, job)
    if not at then questions[#questions + 1] = { job = job, repo = repo, rev = rev } end
  end
end

for _, name in ipairs(call('ZRANGEBYSCORE', 'registrations:uncertain', '-inf', now, 'LIMIT', 0, args.n)) do
  local key = 'runner:' .. name .. ':info'
  local scope, github_id, org = fields(key, 'scope', 'github_id', 'org')
  local at = scope and later(org, owner_of(scope), name)
  if not scope then
    call('ZREM', 'registrations:uncertain', name)
  elseif at then
    call('ZADD', 'registrations:uncertain', at, name)
  else
    local try = call('HINCRBY', key, 'lookups', 1)
    if try >= UNCERTAIN_TRIES then
      call('ZREM', 'registrations:uncertain', name)
    else
      call('ZADD', 'registrations:uncertain', now + setting('uncertain_first') * (try == 1 and 2 or 12), name)
    end
    registrations[#registrations + 1] = { name = name, scope = scope, github_id = github_id or nil }
  end
end

local result = { held = held > 0 and held or nil }
if #removals > 0 then result.removals = removals end
if #questions > 0 then result.questions = questions end
if #registrations > 0 then result.registrations = registrations end
if next(result) == nil then return '{}' end
return cjson.encode(result)
