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
  begin_recount() -- limits may be others: admissions go on with it
  recount()
end
return cjson.encode({ changed = changed })
