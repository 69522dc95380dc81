-- needs: args, owner, demand, backoff
--
-- An owner gets another login. What stands under the one of before moves at once, but for the records of its jobs and
-- classes: these move when they are touched, and a slice of them with each admission.

local MOVED = 64 -- records that one admission moves

local function carry_set(part, old, new)
  local from, to = 'org:' .. old .. part, 'org:' .. new .. part
  if call('EXISTS', from) == 0 then return end
  if call('EXISTS', to) == 0 then
    call('RENAME', from, to)
  elseif call('TYPE', from).ok == 'set' then
    for _, member in ipairs(call('SMEMBERS', from)) do call('SADD', to, member) end
    call('DEL', from)
  else
    local members = call('ZRANGE', from, 0, -1, 'WITHSCORES')
    for i = 1, #members, 2 do call('ZADD', to, members[i + 1], members[i]) end
    call('DEL', from)
  end
end

-- The credential serves an owner under any login; what failed under the one of before says nothing of the new one.
local function carry_credential(old, new)
  local credential = call('HGET', 'orgs:credential', old)
  if credential then call('SREM', 'credential:' .. credential .. ':orgs', old) end
  if carry('orgs:credential', old, new) then call('SADD', 'credential:' .. credential .. ':orgs', new) end
  local aside = call('HGET', 'orgs:parked', old)
  if aside then call('ZREM', aside .. ':parked', old) end
  call('HDEL', 'orgs:parked', old)
  lift('org:' .. old)
  lift('scope:orgs/' .. string.lower(old))
end

local function rename(id, old, new)
  call('HDEL', 'orgs:known', string.lower(old))
  call('HDEL', 'owners:ids', string.lower(old))
  new = learn(new)
  call('HSET', 'owners:logins', id, new)
  call('HSET', 'owners:ids', string.lower(new), id)
  call('HSET', 'owners:were', old, id)
  any_renamed = true
  call('HDEL', 'owners:were', new)
  for _, name in ipairs(call('SMEMBERS', 'org:' .. old .. ':runners')) do
    local key = 'runner:' .. name .. ':info'
    call('HSET', key, 'org', new, 'scope', scope_at(call('HGET', key, 'scope'), old, new))
  end
  for _, part in ipairs({ ':runners', ':pending', ':classes', ':repos' }) do carry_set(part, old, new) end
  carry('orgs:served', old, new)
  carry_limit(old, new)
  carry_pause(old, new)
  carry_credential(old, new)
  call('ZREM', 'orgs:ready', old)
  call('ZREM', 'owners:heard', old)
  call('ZADD', 'owners:heard', now, new)
  call('DEL', 'org:' .. old .. ':running')
  note_size('orgs:running', old, 0)
  note_size('orgs:pending', old, 0)
  call('HSET', 'owners:moving', id, '0')
  mirror(new)
  refresh_org(new)
end

-- The login under which an event's owner stands here. GitHub's id says whose it is: where its login is another than
-- before, it was renamed; where the login was another owner's, that one has it no more, and waits under a name of its
-- own until GitHub says how it is called now.
local function identify(org, id, at)
  if not id then return known(org) end
  local login = call('HGET', 'owners:logins', id)
  if login == org then return org end
  local since = login and at and tonumber(call('HGET', 'owners:told', id))
  if since and at < since then return login end
  if since and at == since then return known(org) end -- two owners with one id and one time: GitHub sends no such thing
  local holder = call('HGET', 'owners:ids', string.lower(org))
  if holder and holder ~= id then
    rename(holder, known(org), org .. '~' .. holder)
    call('HSET', 'owners:told', holder, at or now)
  end
  if not login then return known(org) end
  rename(id, login, org)
  call('HSET', 'owners:told', id, at or now)
  return call('HGET', 'owners:logins', id)
end

-- Moves a slice of the records that stand under a login of before. Whether there is more.
local function move_slice()
  local id, cursor = unpack(call('HSCAN', 'owners:moving', '0', 'COUNT', 1)[2])
  if not id then return false end
  local login = call('HGET', 'owners:logins', id)
  if not login then -- it was forgotten meanwhile
    call('HDEL', 'owners:moving', id)
    return true
  end
  local slice = call('ZSCAN', 'org:' .. login .. ':pending', cursor, 'COUNT', MOVED)
  for i = 1, #slice[2], 2 do
    local key = 'job:' .. slice[2][i] .. ':info'
    follow_rename(key)
    refresh_class(call('HGET', key, 'class'))
  end
  if slice[1] == '0' then call('HDEL', 'owners:moving', id) else call('HSET', 'owners:moving', id, slice[1]) end
  return true
end
