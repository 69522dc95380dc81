-- needs: args, settings, owner, demand, job
--
-- configure(settings): the effective configuration, one for all scripts. The last worker that starts wins; each change
-- counts up the generation. derive_classes(jobs): the classes of jobs that have not begun, which another configuration
-- derives otherwise.
--
-- args: settings (name -> value), jobs ([{job, org, class, scope, group, profile, labels}])

for _, of in ipairs(args.jobs or {}) do
  follow_rename('job:' .. of.job .. ':info')
  local before = call('HGET', 'job:' .. of.job .. ':info', 'org')
  -- a release before took a user's repository for an owner
  if before and before ~= of.org and string.find(before, '/', 1, true) then
    carry_limit(before, of.org)
    carry_pause(before, of.org)
  end
  local state, class = fields('job:' .. of.job .. ':info', 'state', 'class')
  local has_not_begun = state == 'queued' or state == 'waiting' or state == 'in_question'
  if class and has_not_begun then reclass(of.job, learn(of.org), of) end
end

local changed = false
for name, value in pairs(args.settings or {}) do
  local text = tostring(value)
  if call('HGET', 'ledger:meta', name) ~= text then
    call('HSET', 'ledger:meta', name, text)
    changed = true
  end
end
reread_settings()
if changed then
  call('HINCRBY', 'ledger:meta', 'generation', 1)
  begin_recount() -- limits may be others: admissions go on with it
  recount()
end
return cjson.encode({ changed = changed })
