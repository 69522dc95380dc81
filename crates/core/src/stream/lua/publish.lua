-- publish: appends a job event, unless the backlog is full. Returns the id of the entry, or false where nothing was
-- written.
--
-- ARGV: backlog limit, version, event (JSON), delivery

if redis.call('XLEN', 'jit:events') >= tonumber(ARGV[1]) then return false end
return redis.call('XADD', 'jit:events', '*', 'v', ARGV[2], 'event', ARGV[3], 'delivery', ARGV[4])
