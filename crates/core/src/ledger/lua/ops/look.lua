-- needs: args
--
-- look: what people and metrics are told, in few calls whatever the size. It changes nothing.
--
-- args: what (states | held), cursor (of states), org, n (of held)

local SLICE = 500 -- runners that one call counts
local HELD_SCAN = 200 -- jobs in question, waiting or in progress that one call looks through, those due first

local result = {}
if args.what == 'states' then -- live runners by state, a slice in each call
  local slice = call('SSCAN', 'runners:live', args.cursor, 'COUNT', SLICE)
  local states = {}
  for _, name in ipairs(slice[2]) do
    local state, started_at = fields('runner:' .. name .. ':info', 'state', 'started_at')
    if state == 'created' and started_at then state = 'idle' end
    if state then states[state] = (states[state] or 0) + 1 end
  end
  result.cursor = slice[1]
  if next(states) then result.states = states end
elseif args.what == 'held' then -- jobs of an organization that stand in no queue until they are demand again
  local jobs = {}
  for _, job in ipairs(call('ZRANGE', 'jobs:questions', 0, HELD_SCAN - 1)) do
    local org, state = fields('job:' .. job .. ':info', 'org', 'state')
    local held = state == 'in_question' or state == 'waiting'
    if org == args.org and held and #jobs < args.n then jobs[#jobs + 1] = job end
  end
  if #jobs > 0 then result.jobs = jobs end
end
if next(result) == nil then return '{}' end
return cjson.encode(result)
