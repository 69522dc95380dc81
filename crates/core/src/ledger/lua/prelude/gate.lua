-- needs: args
--
-- The gate: nothing is admitted or claimed from data that may be lost or rolled back until the runners that are really
-- there were counted. For the scripts that need it: no other may depend on the right to INFO.

-- The gate's state: open or not, the epoch, this run of Redis, and, while it is closed, since when the loss is known.
-- Every start of a Redis server has another run; a store that is new or was emptied has no epoch.
local function look_at_gate()
  local run_id = string.match(call('INFO', 'server'), 'run_id:(%w+)')
  local epoch, its_run, lost_at, lost_run_id = fields('ledger:meta', 'epoch', 'run_id', 'lost_at', 'lost_run_id')
  if epoch and its_run == run_id then return { open = true, epoch = epoch, run_id = run_id } end
  lost_at = tonumber(lost_at)
  if not lost_at or lost_run_id ~= run_id or lost_at > now then
    lost_at = now
    call('HSET', 'ledger:meta', 'lost_at', now, 'lost_run_id', run_id)
  end
  return { open = false, epoch = epoch, run_id = run_id, lost_at = lost_at }
end

