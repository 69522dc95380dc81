-- forget: deletes a consumer that holds nothing. Deleting one that holds entries would discard them. Returns 0 where it
-- holds some.
--
-- ARGV: stream, consumer

if #redis.call('XPENDING', ARGV[1], 'workers', '-', '+', 1, ARGV[2]) > 0 then return 0 end
return redis.call('XGROUP', 'DELCONSUMER', ARGV[1], 'workers', ARGV[2])
