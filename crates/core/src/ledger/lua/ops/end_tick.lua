-- needs: nothing
--
-- end_tick: gives the right to work on a tick back, where it is still the caller's. Returns how many were given back.
--
-- KEYS: the right (`tick:{kind}:work`). ARGV: worker

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
