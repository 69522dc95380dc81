-- tick: emits a tick of a kind, unless one was emitted within the interval. Returns 1 where it did, else 0.
--
-- ARGV: kind, interval (ms), version

local mark = 'tick:' .. ARGV[1]
-- A mark that lasts for longer than it can is from when Redis's clock was ahead.
if redis.call('PTTL', mark) > tonumber(ARGV[2]) then redis.call('DEL', mark) end
if not redis.call('SET', mark, '1', 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('XADD', 'jit:ticks', '*', 'v', ARGV[3], 'kind', ARGV[1])
return 1
