-- needs: args
--
-- Settings: the numbers of the effective configuration, which `configure` keeps in `ledger:meta`.

local settings = {}

local function setting(name)
  if settings[name] == nil then
    settings[name] = tonumber(call('HGET', 'ledger:meta', name)) or 0
  end
  return settings[name]
end

-- The configuration has changed: the numbers are read anew.
local function reread_settings()
  settings = {}
end
