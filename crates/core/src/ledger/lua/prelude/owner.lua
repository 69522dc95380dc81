-- needs: args
--
-- Owners: who they are by GitHub's ids, which stay, and what they are called, which changes.
--
-- `owners:logins`   HASH  GitHub's id of an owner → its login, as it stands in keys
-- `owners:ids`      HASH  login in lower case → GitHub's id
-- `owners:told`     HASH  GitHub's id → when GitHub first called it by its login of now; what says otherwise and is
--                         older is late
-- `owners:were`     HASH  login of before → GitHub's id: for records of a release that did not note the id
-- `owners:moving`   HASH  GitHub's id → a cursor, while not all records of its jobs have moved
-- `owners:heard`    ZSET  login → when a new job last came

-- The login as GitHub writes it, whatever the case it comes in.
local function known(org)
  return call('HGET', 'orgs:known', string.lower(org)) or org
end

-- Moves what a hash holds of one login to another; the value, where the other had none.
local function carry(hash, old, new)
  local value = call('HGET', hash, old)
  if not value then return nil end
  call('HDEL', hash, old)
  return call('HSETNX', hash, new, value) == 1 and value or nil
end

local function carry_limit(old, new)
  carry('org_limits', old, new)
end

local function carry_pause(old, new)
  local until_ms = call('ZSCORE', 'backoffs', 'pause:' .. old)
  call('ZREM', 'backoffs', 'pause:' .. old)
  if carry('orgs:paused', old, new) and until_ms then call('ZADD', 'backoffs', until_ms, 'pause:' .. new) end
end

-- Learns a login from GitHub's own spelling; what operators had set under another spelling moves to it.
local function learn(org, id, at)
  local login = call('HGET', 'orgs:known', string.lower(org))
  if not login then
    -- The Python system kept a list under this key: nothing of ours may be mixed with what it left.
    if call('TYPE', 'org:' .. org .. ':pending').ok == 'list' then
      error('LEGACY this Redis holds data of the Python system (org:' .. org
        .. ':pending is a list): use another Redis or database, or flush this one', 0)
    end
    login = org
    call('HSET', 'orgs:known', string.lower(org), org)
    for hash, move in pairs({ ['org_limits'] = carry_limit, ['orgs:paused'] = carry_pause }) do
      for _, spelt in ipairs(call('HKEYS', hash)) do
        if spelt ~= org and string.lower(spelt) == string.lower(org) then move(spelt, org) end
      end
    end
  end
  if id and call('HSETNX', 'owners:logins', id, login) == 1 then
    call('HSET', 'owners:ids', string.lower(login), id)
    call('HSET', 'owners:told', id, at or now)
  end
  return login
end

-- A repository as it is called under another login.
local function repo_at(repo, old, new)
  local owner, rest = string.match(repo, '^([^/]*)(.*)$')
  return string.lower(owner) == string.lower(old) and new .. rest or repo
end

-- A scope as it is called under another login; an enterprise's stays.
local function scope_at(scope, old, new)
  local kind, of = string.match(scope, '^(%l+/)(.*)$')
  return kind == 'enterprises/' and scope or kind .. repo_at(of, old, new)
end

local any_renamed -- whether an owner ever was; known once it was asked

-- Brings a record of a class or a job to the login that its owner has now.
local function follow_rename(key)
  if any_renamed == nil then any_renamed = call('EXISTS', 'owners:were') == 1 end
  if not any_renamed then return end
  local org, id, scope, repo = fields(key, 'org', 'owner_id', 'scope', 'repo')
  id = id or org and call('HGET', 'owners:were', org)
  local login = id and call('HGET', 'owners:logins', id)
  if not login or login == org then return end
  call('HSET', key, 'org', login)
  if scope then call('HSET', key, 'scope', scope_at(scope, org, login)) end
  if repo then call('HSET', key, 'repo', repo_at(repo, org, login)) end
end
