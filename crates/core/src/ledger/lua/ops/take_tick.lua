-- needs: nothing
--
-- take_tick: takes the right to work on a tick of a kind. Returns 1, or 0 where somebody has it.
--
-- KEYS: the right (`tick:{kind}:work`). ARGV: worker, time after which the right ends by itself (ms)

-- A right that lasts for longer than it can is from when Redis's clock was ahead.
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then redis.call('DEL', KEYS[1]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
