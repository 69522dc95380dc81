-- What the user that runs a script may not do. Reads and writes no key. `rights.rs` puts this into scripts as a line.

-- commands, probes: lists of words, where '?' stands for a key. A command is tried until a key is allowed, a probe on
-- each key. Returns the names of the commands that are refused on every key, and the keys on which a probe is refused
-- that is allowed on others. Redis does not say whether it refuses the command or the key: where no command is allowed
-- on any key, all keys are returned, and no command that takes a key.
local function lacking(commands, keys, probes)
  local function allowed(command, key)
    local words = {}
    for i, word in ipairs(command) do words[i] = word == '?' and key or word end
    local known, yes = pcall(redis.acl_check_cmd, unpack(words)) -- an error: this server has no such command
    return known and yes
  end
  local function allowed_somewhere(command)
    if not command.keyed then return allowed(command) end
    for _, key in ipairs(keys) do
      if allowed(command, key) then return true end
    end
    return false
  end

  local names, keyed, reaches = {}, {}, false
  for _, command in ipairs(commands) do
    if allowed_somewhere(command) then
      reaches = reaches or command.keyed
    else
      local list = command.keyed and keyed or names
      list[#list + 1] = command.name
    end
  end
  if not reaches and #keyed > 0 then return names, keys end
  for _, name in ipairs(keyed) do names[#names + 1] = name end

  local refused = {}
  for _, key in ipairs(keys) do
    for _, probe in ipairs(probes) do
      if probe.keyed and not allowed(probe, key) and allowed_somewhere(probe) then
        refused[#refused + 1] = key
        break
      end
    end
  end
  return names, refused
end

-- What a script answers that may not run.
local function refusal(names, keys)
  local parts = {}
  if #names > 0 then parts[1] = 'may not run ' .. table.concat(names, ', ') end
  if #keys > 0 then parts[#parts + 1] = 'may not use keys like ' .. table.concat(keys, ', ', 1, math.min(#keys, 5)) end
  return redis.error_reply('NOPERM nothing was changed, since the user of Redis ' .. table.concat(parts, ' and '))
end
