-- acknowledge: acknowledges and deletes entries, and forgets which workers died over them.
--
-- ARGV: stream, ids of the entries

for i = 2, #ARGV do
  redis.call('XACK', ARGV[1], 'workers', ARGV[i])
  redis.call('XDEL', ARGV[1], ARGV[i])
  redis.call('HDEL', ARGV[1] .. ':deaths', ARGV[i])
end
return 1
