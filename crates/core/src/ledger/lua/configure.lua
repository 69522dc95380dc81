-- configure(settings): the effective configuration, one for all scripts. The last worker that starts wins; each change counts up the generation.
--
-- args: settings (name -> value)

local changed = false
for name, value in pairs(args.settings) do
  local text = tostring(value)
  if call('HGET', 'ledger:meta', name) ~= text then
    call('HSET', 'ledger:meta', name, text)
    changed = true
  end
end
settings = {}
if changed then
  call('HINCRBY', 'ledger:meta', 'generation', 1)
  for _, org in ipairs(call('HVALS', 'orgs:known')) do refresh_org(org) end
end
return cjson.encode({ changed = changed })
